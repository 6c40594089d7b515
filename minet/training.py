"""The training loop: a model, two sources of batches, a recipe; resumable at any step."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment import Draws, InputForm, to_input
from minet.batch import Batch, EpochPlan, Source, whole_order
from minet.errors import InputError
from minet.optim import build_optimizer, learning_rate
from minet.seeding import Stream, torch_seed
from minet.settings_train import RunSettings

_CHECK_EVERY_STEPS = 50  # a look at the losses waits for the device; a bad one is named afterwards


@dataclass(frozen=True)
class EpochRecord:
    """A row of plots/history.csv: means over images, losses in nats; lr of the last step."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float


class Store(Protocol):
    """Where a run's state is kept; `minet.checkpoint.ResumeStore` is one."""

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Give the last state saved, or None."""
        ...

    def due(self) -> bool:
        """Whether it is time for another save."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a state in the place of the last one."""
        ...


@runtime_checkable
class FollowsEpochs(Protocol):
    """A layer with a schedule; what it sets must be a buffer, so that the weights carry it."""

    def at_epoch(self, epoch: int) -> None:
        """Take the number of the epoch that begins, from 0."""
        ...


@dataclass(frozen=True)
class Watcher:
    """What the loop tells the outside: steps as they come, the history after each epoch."""

    steps: Callable[[Iterator[Batch], int, int, int], Iterable[Batch]]  # batches, epoch, done, all
    history: Callable[[list[EpochRecord]], None]


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the weights of the best epoch and the story of all."""

    weights: dict[str, Tensor]
    best: EpochRecord
    history: list[EpochRecord]
    seconds: list[float]  # wall time of each epoch, validation included


class Trainer:
    """The parts of one run and the state that a save holds."""

    def __init__(
        self, model: nn.Module, run: RunSettings, form: InputForm, device: torch.device
    ) -> None:
        """Put the model on the device; weights are as given until `resume`."""
        self.run, self.form, self.device = run, form, device
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(model, run.train)
        self.epoch = self.step = 0
        self.losses = torch.zeros(0, device=device)  # (steps,) sums over the images of each step
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.history: list[EpochRecord] = []
        self.seconds: list[float] = []
        self.elapsed_s = 0.0  # of the running epoch when it was last saved
        self._clock_s = 0.0
        self.best_weights: dict[str, Tensor] = {}
        self.best_epoch = 0

    def state(self) -> dict[str, Any]:
        """Give all that the rest of the run depends on, for `resume`."""
        plain = ("epoch", "step", "losses", "hits", "seconds", "best_weights", "best_epoch")
        return {name: getattr(self, name) for name in plain} | {
            "elapsed_s": time.perf_counter() - self._clock_s if self.step else 0.0,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(record) for record in self.history],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state, as if the run had never stopped."""
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.history = [EpochRecord(**record) for record in state.pop("history")]
        for name, value in state.items():
            setattr(self, name, value)

    def begin_epoch(self, steps: int) -> None:
        """Open the books of an epoch, or those of its rest after a resume.

        Layers with a schedule of their own (`at_epoch`) are told which epoch it is.
        """
        for layer in self.model.modules():
            if isinstance(layer, FollowsEpochs):
                layer.at_epoch(self.epoch)
        self._clock_s = time.perf_counter() - self.elapsed_s
        self.elapsed_s = 0.0
        if self.step == 0:
            self.losses = torch.zeros(steps, device=self.device)
            self.hits = torch.zeros_like(self.hits)
        self.model.train()

    def train_step(self, batch: Batch, plan: EpochPlan, lr: float) -> None:
        """Make one step of the optimizer; adds to `losses` and `hits` without waiting for them."""
        torch.manual_seed(torch_seed(self.run.seed, Stream.STEP, self.epoch, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images, labels = (tensor.to(self.device) for tensor in (batch.images, batch.labels))
        inputs = to_input(images, self.form, Draws.of(plan, batch.indices, self.device))
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.run.train.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.losses[self.step] = loss.detach() * len(labels)
        self.hits += (logits.detach().argmax(dim=1) == labels).sum()
        self.step += 1

    def end_epoch(self, count: int, val_loss: float, val_accuracy: float, lr: float) -> None:
        """Close the books of an epoch over `count` images; keep its weights if they are best."""
        train_loss = self.losses.double().sum().item() / count
        train_accuracy = self.hits.item() / count
        record = EpochRecord(self.epoch, train_loss, train_accuracy, val_loss, val_accuracy, lr)
        self.history.append(record)
        if not self.best_weights or self._better(record, self.history[self.best_epoch]):
            self.best_epoch = self.epoch
            self.best_weights = {
                name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()
            }
        self.seconds.append(time.perf_counter() - self._clock_s)
        self.epoch, self.step = self.epoch + 1, 0

    def check_finite(self) -> None:
        """Stop on a loss that is not a number, naming the step that brought it."""
        finite = torch.isfinite(self.losses[: self.step])
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            self._stop(f"the training loss is {self.losses[step].item()} at step {step}")

    def check_validation(self, loss: float) -> None:
        """Stop on a validation loss that is not a number."""
        if not math.isfinite(loss):
            self._stop(f"the validation loss is {loss} after step {self.step - 1}")

    def _stop(self, what: str) -> None:
        recipe = self.run.train
        raise InputError(
            f"{self.run.model}: {what} of epoch {self.epoch} (both from 0); try a lower train.lr "
            f"(it is {recipe.lr}) or a longer train.warmup_epochs (it is {recipe.warmup_epochs})"
        )

    def _better(self, one: EpochRecord, other: EpochRecord) -> bool:
        if self.run.train.best_by == "loss":
            return one.val_loss < other.val_loss
        return one.val_accuracy > other.val_accuracy


def check_last_batch(trainer: Trainer, count: int) -> None:
    """Stop before the first step if an epoch's last batch cannot be trained on.

    Batch norm over a map of one pixel needs more than one image.
    """
    batch_size, side_px = trainer.run.train.batch_size, trainer.form.input_px
    if count % batch_size != 1 and batch_size > 1:
        return
    model = copy.deepcopy(trainer.model).to("meta").train()
    try:
        model(torch.empty(1, 3, side_px, side_px, device="meta"))
    except ValueError as error:
        raise InputError(
            f"train.batch_size is {batch_size}: the last batch of {count} images holds one, which "
            f"{trainer.run.model} cannot be trained on at {side_px} px ({error}); choose a size "
            "that leaves none or several"
        ) from error


def fit(
    trainer: Trainer,
    train: Source,
    val: Source,
    plan: Callable[[int], EpochPlan],
    *,
    store: Store,
    watcher: Watcher,
) -> Outcome:
    """Train for the recipe's epochs, from the last save if there is one.

    `plan` gives an epoch's plan from its number. InputError stops a run whose loss is not finite.
    """
    check_last_batch(trainer, train.count)
    state = store.load(trainer.device)
    if state is not None:
        trainer.resume(state)
        print(f"resumed at epoch {trainer.epoch}, step {trainer.step} (both from 0)", flush=True)
        if trainer.history:  # its file may be gone: DVC removes outputs before it runs a stage
            watcher.history(trainer.history)
    while trainer.epoch < trainer.run.train.epochs:
        lr = _train_epoch(trainer, train, plan(trainer.epoch), store, watcher)
        val_loss, val_accuracy = validate(trainer.model, val, trainer.form, trainer.device)
        trainer.check_validation(val_loss)
        trainer.end_epoch(train.count, val_loss, val_accuracy, lr)
        watcher.history(trainer.history)
        store.save(trainer.state())
    best = trainer.history[trainer.best_epoch]
    return Outcome(trainer.best_weights, best, trainer.history, trainer.seconds)


@torch.inference_mode()
def validate(
    model: nn.Module, source: Source, form: InputForm, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy in nats (never smoothed) and accuracy over a whole split."""
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for batch in source.batches(whole_order(source.count)):
        images, labels = batch.images.to(device), batch.labels.to(device)
        logits = model(to_input(images, form))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits += (logits.argmax(dim=1) == labels).sum()
    return loss.item() / source.count, hits.item() / source.count


def _train_epoch(
    trainer: Trainer, source: Source, plan: EpochPlan, store: Store, watcher: Watcher
) -> float:
    """Train on what is left of an epoch; return the last learning rate."""
    recipe = trainer.run.train
    steps = math.ceil(source.count / source.batch_size)
    trainer.begin_epoch(steps)
    batches = source.batches(plan.order[trainer.step * source.batch_size :])
    for batch in watcher.steps(batches, trainer.epoch, trainer.step, steps):
        lr = learning_rate(recipe, trainer.epoch + (trainer.step + 0.5) / steps)
        trainer.train_step(batch, plan, lr)
        if trainer.step % _CHECK_EVERY_STEPS == 0:
            trainer.check_finite()
        if store.due() and trainer.step < steps:
            trainer.check_finite()
            store.save(trainer.state())
    trainer.check_finite()
    return learning_rate(recipe, trainer.epoch + 1 - 0.5 / steps)
