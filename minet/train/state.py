"""The state of a run besides its model: epoch, step, losses, history, best weights."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from minet.core.errors import InputError
from minet.train.config import RunSettings

CHECK_EVERY_STEPS = 50  # steps between checks for a non-finite loss; each syncs a GPU
_SAVED = ("epoch", "step", "losses", "correct", "seconds", "best_weights", "best_epoch")


@dataclass(frozen=True)
class EpochRecord:
    """A row of history.csv: means over images, losses in nats; lr of the last step."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float


class TrainState:
    """Counters, history and best weights of a run; an epoch's sums stay on the device."""

    def __init__(self, settings: RunSettings, device: torch.device) -> None:
        self._settings = settings
        self.epoch = self.step = 0
        self.losses = torch.zeros(0, device=device)  # (steps,) sums over the images of each step
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []  # of each epoch, validation included
        self.best_weights: dict[str, Tensor] = {}
        self.best_epoch = 0
        self._elapsed_s = 0.0  # of the current epoch when it was last saved
        self._started_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state (live tensors, not copies)."""
        return {name: getattr(self, name) for name in _SAVED} | {
            "elapsed_s": time.perf_counter() - self._started_s if self.step else 0.0,
            "history": [asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self.history = [EpochRecord(**record) for record in state["history"]]
        self._elapsed_s = state["elapsed_s"]
        for name in _SAVED:
            setattr(self, name, state[name])

    def begin_epoch(self, steps: int) -> None:
        """Start an epoch of so many steps, or the rest of one after a resume."""
        self._started_s = time.perf_counter() - self._elapsed_s
        self._elapsed_s = 0.0
        if self.step == 0:
            self.losses = torch.zeros(steps, device=self.losses.device)
            self.correct = torch.zeros_like(self.correct)

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """Add a step: the sum of its losses, its number of correct images."""
        self.losses[self.step] = loss
        self.correct += correct
        self.step += 1
        if self.step % CHECK_EVERY_STEPS == 0:
            self.check_finite(self.losses)

    def end_epoch(self, record: EpochRecord, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Finish an epoch; keep the copy of the weights that `weights` makes if it is the best."""
        self.history.append(record)
        if not self.best_weights or self._better(record, self.history[self.best_epoch]):
            self.best_epoch, self.best_weights = self.epoch, weights()
        self.seconds.append(time.perf_counter() - self._started_s)
        self.epoch, self.step = self.epoch + 1, 0

    def check_finite(self, losses: Tensor) -> None:
        """Raise InputError for a loss that is not finite; it names the first such step."""
        finite = torch.isfinite(losses[: self.step])
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            raise self._not_finite(f"the training loss is {losses[step].item()} at step {step}")

    def check_validation(self, loss: float) -> None:
        """Raise InputError for a validation loss that is not finite."""
        if not math.isfinite(loss):
            raise self._not_finite(f"the validation loss is {loss} after step {self.step - 1}")

    def _not_finite(self, what: str) -> InputError:
        model, recipe = self._settings.model, self._settings.train
        return InputError(
            f"{model}: {what} of epoch {self.epoch} (both from 0); try a lower train.lr "
            f"(it is {recipe.lr}) or a longer train.warmup_epochs (it is {recipe.warmup_epochs})"
        )

    def _better(self, one: EpochRecord, other: EpochRecord) -> bool:
        if self._settings.train.selection_metric == "loss":
            return one.val_loss < other.val_loss
        return one.val_accuracy > other.val_accuracy
