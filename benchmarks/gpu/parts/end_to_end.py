"""`python -m stages.train` from start to end, and its step alone beside it."""

import time

from benchmarks.gpu.parts.images import EPOCH
from benchmarks.gpu.work import Work
from benchmarks.processes import run_request
from benchmarks.train.job import run_settings
from minet.core.files import read_json
from tests.helpers.tiny_run import TinyRun


def measure(work: Work) -> None:
    """Report the speed of a run on betons repeated to the number of images of the size."""
    size, job = work.size, work.job(work.size.model, work.size.batch_size)
    settings = run_settings(job, epochs=size.epochs).model_dump(mode="json")
    run = TinyRun(work.folder / EPOCH, work.folder / "end-to-end", settings)
    _, _, *arguments = run.command()  # python -m stages.train ...
    started = time.time()
    request = {"arguments": arguments, "job": job.record()}
    watched = run_request(
        "benchmarks.gpu.watched", run.out / "request.json", request, work.left_s()
    )
    speed = read_json(run.out / "speed.json")
    work.report("speed", value=speed)
    work.report("images", value=size.epoch_images)
    work.report("first_step_s", value=watched.pop("first_step_at") - started)
    work.report("run", value=watched)
    warm = [size.epoch_images / seconds for seconds in watched["steps_s"][1:]]
    work.report("images_per_s", value=warm)
    work.claim("model", speed["model"], size.model)
    work.claim("input_px", speed["input_px"], size.image_size)
    work.claim("batch_size", speed["batch_size"], size.batch_size)
    work.claim("resident", watched["resident"], expected=True)
    work.claim("precision", speed["precision"], "bfloat16" if work.gpu else "float32")
    work.claim("compiled", speed["compiled"], expected=work.gpu)
    work.claim("has compiled graphs", watched["compiled_graphs"] > 0, expected=work.gpu)
    work.claim("on a GPU", speed["device"] != "cpu", expected=work.gpu)
    work.claim("epochs", len(watched["steps_s"]), size.epochs)
