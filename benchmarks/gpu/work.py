"""What a part gets: its size, its folder, its time; and where it reports its results."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.sizes import Size
from benchmarks.train.job import Job

_BATCHES = 2  # different ones of a job, used cyclically


def error_text(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


class WrongClaimError(Exception):
    """A run was not what its figures say it was."""


@dataclass
class Work:
    """The work of one part, in its process."""

    folder: Path  # shared by the parts of a run
    photos: Path | None  # JPEGs 000000.jpg and so on; None: make them
    size: Size
    device: torch.device
    results: Path
    end: float  # time.time() at which the part is killed
    _wrong: list[str] = field(default_factory=list)

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def left_s(self) -> float:
        """Return the seconds until the part is killed, at least one."""
        return max(1.0, self.end - time.time())

    def report(self, *keys: str, value: Any) -> None:
        """Save a result under nested keys; it is kept if the part fails later.

        A number that is not finite, which JSON does not have, becomes a text.
        """
        finite = json.loads(json.dumps(value), parse_constant=str)
        line = json.dumps({"keys": keys, "value": finite})
        with self.results.open("a") as file:
            file.write(line + "\n")
        print(*keys, value, flush=True)

    def attempt(self, *keys: str, measure: Callable[[], Any]) -> None:
        """Report what a function returns; what it raises is kept, and the part fails at its end."""
        try:
            self.report(*keys, value=measure())
        except Exception as error:  # noqa: BLE001 - the next measurement may work
            traceback.print_exc()
            text = error_text(error)
            self.report(*keys, value={"failed": text})
            self.claim(", ".join(keys), text, "measured")

    def claim(self, what: str, found: Any, expected: Any) -> None:
        """Report what a run was found to be; the part fails at its end if that is not expected."""
        self.report("claims", what, value={"found": found, "expected": expected})
        if found != expected:
            self._wrong.append(f"{what} is {found}, not {expected}")

    def check_claims(self) -> None:
        """Raise WrongClaimError if a claim did not hold."""
        if self._wrong:
            raise WrongClaimError("; ".join(self._wrong))

    def job(self, model: str, batch_size: int, **changes: Any) -> Job:
        """Return a job of the size's steps."""
        size = self.size
        defaults = {"warm_up": size.warm_up, "repeats": size.repeats, "steps": size.steps}
        return Job(model, batch_size, size.image_size, _BATCHES, **{**defaults, **changes})
