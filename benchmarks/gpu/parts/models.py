"""Training steps of other models and batch sizes; dynamic convolutions against static ones."""

from benchmarks.gpu.steps import measured_step
from benchmarks.gpu.work import Work


def measure(work: Work) -> None:
    """Report images per second of each model and batch size; what does not run, with its error."""
    for model, batch_size in work.size.models:
        name = f"{model}, batch {batch_size}"
        result = measured_step(work.job(model, batch_size), work.device)
        work.report("steps", name, value=result)
        if "failed" not in result:
            work.claim(f"{name}: compiled", result["compiled_graphs"] > 0, expected=work.gpu)
            precision = "bfloat16" if work.gpu else "float32"
            work.claim(f"{name}: precision", result["precision"], precision)
