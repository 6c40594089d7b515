"""Run `stages.train` and note when its steps ran; then time its step on images in memory.

python -m benchmarks.gpu.watched FILE, a request {"arguments": those of `stages.train`, "job"}; the
record is written beside it as FILE.result. The run itself only synchronizes once more, after its
first step.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import compiled_graphs, peak_memory_gb
from benchmarks.train.job import Clock, Job, now
from benchmarks.train.ours import run_steps
from minet.core.cli import run
from minet.core.files import read_json, write_json
from minet.train import loop
from minet.train.step import TrainStep
from stages import train

_Function = Callable[..., Any]


class _Watch:
    """What is noted of a run: its step, whether its images are in memory, and times."""

    def __init__(self) -> None:
        self.train_step: TrainStep | None = None
        self.resident: bool | None = None
        self.first_step_at: float | None = None
        self.marks: list[float] = []  # of each epoch: its plan, the end of its last step

    def install(self) -> None:
        """Wrap the functions that a run calls once, or once per epoch; the step until its first."""
        _wrap(train, "run_summary", self._noting)
        _wrap(train, "plan_epoch", self._marking)
        _wrap(loop, "validate", self._marking)
        _wrap(TrainStep, "step", self._timing_the_first)

    def _noting(self, summary: _Function) -> _Function:
        def noting(train_step: TrainStep, *, resident: bool) -> Any:
            self.train_step, self.resident = train_step, resident
            return summary(train_step, resident=resident)

        return noting

    def _marking(self, function: _Function) -> _Function:
        def marking(*args: Any, **kwargs: Any) -> Any:
            if self.train_step is not None:
                self.marks.append(now(self.train_step.device))
            return function(*args, **kwargs)

        return marking

    def _timing_the_first(self, step: _Function) -> _Function:
        def first(train_step: TrainStep, *args: Any, **kwargs: Any) -> Any:
            result = step(train_step, *args, **kwargs)
            now(train_step.device)
            self.first_step_at = time.time()
            _wrap(TrainStep, "step", lambda _: step)
            return result

        return first


def main() -> None:
    """Train to the end, then time the bare step; write the record."""
    path = Path(sys.argv[1])
    request = read_json(path)
    sys.argv = ["stages.train", *request["arguments"]]
    watch, job = _Watch(), Job(**request["job"])
    watch.install()
    run(train.main)
    if watch.train_step is None:
        raise RuntimeError("stages.train made no step")
    device, peak_gb = watch.train_step.device, peak_memory_gb()
    clock = Clock(job, device)
    run_steps(watch.train_step, job, clock, augmented=True)
    record = {
        "resident": watch.resident,
        "first_step_at": watch.first_step_at,
        "steps_s": [b - a for a, b in zip(watch.marks[::2], watch.marks[1::2], strict=True)],
        "peak_memory_gb": peak_gb,
        "compiled_graphs": compiled_graphs(),
        "bare_images_per_s": [job.batch_size * job.steps / seconds for seconds in clock.seconds()],
    }
    write_json(path.with_suffix(".result"), record)


def _wrap(owner: object, name: str, wrap: Callable[[_Function], _Function]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


if __name__ == "__main__":
    main()
