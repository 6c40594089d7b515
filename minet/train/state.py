"""Where a run stands: epochs, steps, losses, the history and the best weights."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from minet.core.errors import InputError
from minet.train.config import RunSettings

CHECK_EVERY_STEPS = 50  # how soon a loss that is not finite is seen


@dataclass(frozen=True)
class EpochRecord:
    """A row of plots/history.csv: means over images, losses in nats; lr of the last step."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float


class TrainState:
    """The books of a run; sums of an epoch stay on the device until it ends."""

    def __init__(self, run: RunSettings, device: torch.device) -> None:
        """Open the books before the first epoch."""
        self._run = run
        self.epoch = self.step = 0
        self.losses = torch.zeros(0, device=device)  # (steps,) sums over the images of each step
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []  # of each epoch, validation included
        self.best_weights: dict[str, Tensor] = {}
        self.best_epoch = 0
        self._elapsed_s = 0.0  # of the running epoch when it was last saved
        self._clock_s = 0.0
        self._looks = _Looks()

    def state_dict(self) -> dict[str, Any]:
        """Give all of it for `resume`; it is what it is, not a copy."""
        plain = ("epoch", "step", "losses", "hits", "seconds", "best_weights", "best_epoch")
        return {name: getattr(self, name) for name in plain} | {
            "elapsed_s": time.perf_counter() - self._clock_s if self.step else 0.0,
            "history": [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up saved books."""
        self.history = [EpochRecord(**record) for record in state["history"]]
        self._elapsed_s = state["elapsed_s"]
        for name in ("epoch", "step", "losses", "hits", "seconds", "best_weights", "best_epoch"):
            setattr(self, name, state[name])

    def begin_epoch(self, steps: int) -> None:
        """Open the books of an epoch, or those of its rest after a resume."""
        self._clock_s = time.perf_counter() - self._elapsed_s
        self._elapsed_s = 0.0
        if self.step == 0:
            self.losses = torch.zeros(steps, device=self.losses.device)
            self.hits = torch.zeros_like(self.hits)

    def add(self, loss: Tensor, hits: Tensor) -> None:
        """Book a step: the sum of its losses, its hits."""
        self.losses[self.step] = loss
        self.hits += hits
        self.step += 1
        if self.step % CHECK_EVERY_STEPS == 0 and self._looks.saw_trouble(self.losses):
            self.check_finite(self.losses)

    def end_epoch(self, record: EpochRecord, weights: dict[str, Tensor]) -> None:
        """Close the books of an epoch; keep its weights if they are the best."""
        self.history.append(record)
        if not self.best_weights or self._better(record, self.history[self.best_epoch]):
            self.best_epoch, self.best_weights = self.epoch, weights
        self.seconds.append(time.perf_counter() - self._clock_s)
        self.epoch, self.step = self.epoch + 1, 0

    def check_finite(self, losses: Tensor) -> None:
        """Stop on a loss that is not a number, naming the step that brought it."""
        finite = torch.isfinite(losses[: self.step])
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            self._stop(f"the training loss is {losses[step].item()} at step {step}")

    def check_validation(self, loss: float) -> None:
        """Stop on a validation loss that is not a number."""
        if not math.isfinite(loss):
            self._stop(f"the validation loss is {loss} after step {self.step - 1}")

    def _stop(self, what: str) -> None:
        recipe = self._run.train
        raise InputError(
            f"{self._run.model}: {what} of epoch {self.epoch} (both from 0); try a lower train.lr "
            f"(it is {recipe.lr}) or a longer train.warmup_epochs (it is {recipe.warmup_epochs})"
        )

    def _better(self, one: EpochRecord, other: EpochRecord) -> bool:
        if self._run.train.selection_metric == "loss":
            return one.val_loss < other.val_loss
        return one.val_accuracy > other.val_accuracy


class _Looks:
    """Looks for a bad loss; on a GPU each is answered at a later one, without a wait."""

    def __init__(self) -> None:
        self._asked: tuple[Tensor, torch.cuda.Event] | None = None

    def saw_trouble(self, losses: Tensor) -> bool:
        """Whether a loss was not finite when last known."""
        fine = torch.isfinite(losses).all()
        if fine.device.type != "cuda":
            return not bool(fine)
        if self._asked is not None and not self._asked[1].query():  # type: ignore[no-untyped-call]
            return False
        trouble = self._asked is not None and not bool(self._asked[0])
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(fine, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._asked = None if trouble else (answer, arrived)
        return trouble
