"""What each choice of the step is worth; the algorithms of dynamic convolution by shape."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from benchmarks.gpu.steps import Prepare, measured_step
from benchmarks.gpu.work import Work
from benchmarks.processes import FailedError, run_module
from minet.augment.transforms import to_input
from minet.core.files import read_json
from minet.train import step as step_module
from minet.train.step import TrainStep


def measure(work: Work) -> None:
    """Report the default step, then each with one choice changed, then convolutions by shape."""
    job = work.job(work.size.model, work.size.batch_size)
    for name in ("default", "not compiled", "not compiled, channels-first"):
        prepare: Prepare = _channels_first if "channels-first" in name else nullcontext[TrainStep]
        recipe = {"compile": "never"} if "not compiled" in name else {}
        result = measured_step(job, work.device, prepare, **recipe)
        work.report("steps", name, value=result)
        compiled = work.gpu and not recipe
        work.claim(f"{name}: compiled", result.get("compiled_graphs", 0) > 0, expected=compiled)
    for batch_size in work.size.form_batch_sizes:
        work.report("forms", str(batch_size), value=_forms(batch_size, work))
    for batch_size in work.size.batch_sizes:
        result = measured_step(work.job(work.size.model, batch_size), work.device)
        work.report("steps", f"batch {batch_size}", value=result)
    if work.gpu:  # a CPU would compile for minutes
        result = measured_step(job, work.device, _channels_first)
        work.report("steps", "channels-first", value=result)


def _forms(batch_size: int, work: Work) -> dict[str, Any]:
    """Return milliseconds of each algorithm by shape; {"failed": reason} if they fail."""
    path = work.folder / f"forms-{batch_size}.json"
    arguments = [
        "--parts",
        "forms",
        "--batch",
        str(batch_size),
        "--repeats",
        str(work.size.repeats),
    ]
    arguments += ["--image-size", str(work.size.form_image_size), "--out", str(path)]
    try:
        run_module(["benchmarks.dynamic", *arguments], work.left_s())
    except FailedError as error:
        return {"failed": str(error)}
    (times,) = read_json(path)["forms"].values()
    return dict(times)


@contextmanager
def _channels_first(train_step: TrainStep) -> Iterator[None]:
    """Give weights and inputs the memory format that torch has by default."""
    train_step.model.to(memory_format=torch.contiguous_format)
    setattr(step_module, "to_input", lambda *args: to_input(*args).contiguous())  # noqa: B010
    try:
        yield
    finally:
        setattr(step_module, "to_input", to_input)  # noqa: B010
