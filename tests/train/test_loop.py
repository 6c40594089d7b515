"""The loop: learns, keeps the best epoch, resumes at any step with the same bytes, stops on nan."""

import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minet.augment.channels import input_channels
from minet.augment.config import AugmentSettings, scored_augment
from minet.augment.plan import plan_epoch
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.core.arrays import IndexArray
from minet.core.errors import InputError, InterruptedRun
from minet.core.settings import parse
from minet.loader.batch import Batch
from minet.loader.sharding import BatchSharder
from minet.nn.checkpoint import load_model, save_model
from minet.train.config import RunSettings
from minet.train.context import Callbacks, TrainContext, TrainResult
from minet.train.interrupt import Interrupt
from minet.train.loop import check_last_batch, fit, validate
from minet.train.snapshot import SnapshotStore
from minet.train.state import EpochRecord, TrainState
from minet.train.step import TrainStep
from tests.helpers.sources import ListSource

SPEC = InputSpec(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def settings(raw_params: dict[str, Any], **changes: Any) -> RunSettings:
    """A short recipe with every kind of augmentation, changed as asked."""
    train = raw_params["train"] | {"epochs": 3, "batch_size": 8, "input_px": 16, "lr": 0.01}
    train["augment"] |= {"rotation_degrees": 10.0, "channel_shuffle": 0.5}
    raw = {"model": "cnn3", "builder": "minet.models.cnn3:cnn3", "arguments": {}, "seed": 3}
    raw |= {"weights": "random", "reinitialized": [], "cache": "auto"}
    return parse(RunSettings, raw | {"train": train | changes})


def model() -> nn.Module:
    """A tiny model with what makes resuming hard: batch norm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * 14 * 14, 2),
    )  # fmt: skip


def quiet(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
    """Show nothing."""
    del epoch, done, total
    return batches


class EveryStep(SnapshotStore):
    """Saves after every step, however long the last save takes."""

    def should_save(self) -> bool:
        self.finish()
        return True


def prepared(
    run: RunSettings,
    source: ListSource,
    folder: Path,
    steps: Any = quiet,
    *,
    save_every_s: float = 1e9,
    written: list[list[EpochRecord]] | None = None,
    network: nn.Module | None = None,
    form: InputSpec = SPEC,
    scored: AugmentSettings | None = None,
) -> TrainContext:
    """Prepare a run of the tiny model on the source, which is its own validation split."""
    history = [] if written is None else written
    val_plan = None if scored is None else partial(plan_epoch, source.count, 16, scored, 77)
    return TrainContext(
        run,
        TrainStep(network or model(), run.train, form, CPU),
        source,
        source,
        BatchSharder(run.train.batch_size),
        source.count,
        partial(plan_epoch, source.count, 16, run.train.augment, run.seed),
        SnapshotStore(folder, save_every_s) if save_every_s else EveryStep(folder, 0),
        Callbacks(steps, lambda records: history.append(list(records)), lambda *_: None),
        val_plan,
    )


def train(
    run: RunSettings, source: ListSource, folder: Path, *args: Any, **named: Any
) -> TrainResult:
    """Train the tiny model on the source, which is its own validation split."""
    whole = prepared(run, source, folder, *args, **named)
    with whole.store.lock():
        return fit(whole)


def assert_same(one: TrainResult, other: TrainResult) -> None:
    """Everything but the clock is the same to the last bit."""
    assert one.history == other.history
    assert one.best == other.best
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_it_learns_and_writes_down_what_happened(raw_params, blobs, tmp_path) -> None:
    run = settings(raw_params)
    outcome = train(run, blobs, tmp_path / "r")
    assert [record.epoch for record in outcome.history] == [0, 1, 2]
    assert outcome.history[-1].train_loss < outcome.history[0].train_loss
    assert outcome.best.val_accuracy > 0.9
    assert outcome.best == min(outcome.history, key=lambda record: record.val_loss)
    best = model()
    best.load_state_dict(outcome.weights)
    assert validate(TrainStep(best, run.train, SPEC, CPU), blobs) == (
        outcome.best.val_loss,
        outcome.best.val_accuracy,
    )


def test_two_runs_are_the_same_bytes_and_another_seed_is_not(raw_params, blobs, tmp_path) -> None:
    first = train(settings(raw_params), blobs, tmp_path / "1")
    assert_same(first, train(settings(raw_params), blobs, tmp_path / "2"))
    other = settings(raw_params).model_copy(update={"seed": 4})
    assert train(other, blobs, tmp_path / "3").history != first.history


class Killed(Exception):
    """Stands for the death of the process."""


def cutting(kill_at: int) -> Any:
    """Give a `steps` that dies before step `kill_at` of the run."""
    taken = 0

    def cut(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del epoch, done, total
        nonlocal taken
        for batch in batches:
            if taken == kill_at:
                raise Killed
            taken += 1
            yield batch

    return cut


@pytest.mark.parametrize("kill_at", [1, 4, 5, 7, 10, 14])
def test_a_run_cut_at_any_step_ends_the_same(raw_params, blobs, tmp_path, kill_at: int) -> None:
    """Saved after every step, cut before step `kill_at` of 15, taken up again."""
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings(raw_params), blobs, tmp_path / "cut", cutting(kill_at), save_every_s=0)
    blobs.served = 0
    resumed = train(settings(raw_params), blobs, tmp_path / "cut")
    assert_same(resumed, expected)
    validation = 5 * (3 - kill_at // 5)
    assert blobs.served == 15 - kill_at + validation, "a step before the cut was done again"


def test_a_run_killed_after_its_last_save_only_writes_its_results(
    raw_params, blobs, tmp_path
) -> None:
    done = train(settings(raw_params), blobs, tmp_path / "r")
    blobs.served = 0
    written: list[list[EpochRecord]] = []
    again = train(settings(raw_params), blobs, tmp_path / "r", written=written)
    assert_same(again, done)
    assert blobs.served == 0
    assert written == [done.history], "the history was not written anew"


def test_the_best_epoch_is_by_loss_or_accuracy_and_the_first_of_equals(raw_params) -> None:
    rows = [(0.9, 0.5), (0.7, 0.6), (0.8, 0.9), (0.7, 0.9)]
    for selection_metric, expected in (("loss", 1), ("accuracy", 2)):
        progress = TrainState(settings(raw_params, selection_metric=selection_metric), CPU)
        for epoch, (loss, accuracy) in enumerate(rows):
            weights = {"w": torch.tensor(float(epoch))}
            progress.end_epoch(EpochRecord(epoch, 1.0, 0.5, loss, accuracy, 0.1), weights)
        assert progress.best_epoch == expected, selection_metric
        assert progress.best_weights["w"] == expected


def poisoned(at: int) -> Any:
    """Give a `steps` that makes the images of step `at` of epoch 1 the cause of a nan."""

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del done, total
        for step, batch in enumerate(batches):
            if (epoch, step) == (1, at):
                nothing = torch.full_like(batch.images, torch.nan, dtype=torch.float32)
                yield Batch(nothing, batch.labels, batch.indices)
            else:
                yield batch

    return steps


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("save_every_s", [0, 1e9], ids=["saved each step", "saved each epoch"])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_model_epoch_and_step(
    raw_params, blobs, tmp_path, at: int, save_every_s: float
) -> None:
    expected = rf"^cnn3: the training loss is nan at step {at} of epoch 1 \(both from 0\)"
    with pytest.raises(InputError, match=expected):
        train(settings(raw_params), blobs, tmp_path / "r", poisoned(at), save_every_s=save_every_s)
    state = SnapshotStore(tmp_path / "r", 1).load()
    assert state is not None
    saved = state["engine"]["model"].values()
    assert all(tensor.isfinite().all() for tensor in saved), "poison was saved"


def test_a_diverging_run_is_told_what_to_try(raw_params, blobs, tmp_path) -> None:
    run = settings(raw_params, lr=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(InputError, match=r"try a lower train.lr \(it is 1e\+30\)"):
        train(run, blobs, tmp_path / "r")


def test_a_validation_loss_that_is_not_finite_stops_the_run(raw_params) -> None:
    progress = TrainState(settings(raw_params), CPU)
    with pytest.raises(InputError, match=r"cnn3: the validation loss is inf after step"):
        progress.check_validation(float("inf"))


@pytest.mark.parametrize("sizes", [(17, 8, 1), (5, 1, 1), (16, 8, 8)], ids=str)
def test_a_last_batch_of_one_image_is_refused_where_batch_norm_cannot_take_it(
    raw_params, blobs, tmp_path, sizes: tuple[int, int, int]
) -> None:
    count, batch_size, parts = sizes
    run = settings(raw_params, batch_size=batch_size, accumulation_steps=parts)
    small = nn.Sequential(nn.Conv2d(3, 4, 16), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    some = prepared(run, blobs, tmp_path / "r", network=small)
    with pytest.raises(InputError, match=rf"train.batch_size is {batch_size} and train.accum"):
        check_last_batch(replace(some, count=count))
    larger = prepared(run, blobs, tmp_path / "r")  # a map of more pixels is enough
    check_last_batch(replace(larger, count=count))
    if batch_size > parts:
        check_last_batch(replace(some, count=count + 1))


def test_the_whole_last_batch_is_trained_on(raw_params, blobs, tmp_path) -> None:
    blobs.images, blobs.labels, blobs.count = blobs.images[:37], blobs.labels[:37], 37
    seen: list[int] = []

    def note(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        assert (done, total) == (0, 5)
        for batch in batches:
            seen.extend(batch.indices.tolist())
            yield batch

    train(settings(raw_params, epochs=1), blobs, tmp_path / "r", note)
    assert sorted(seen) == list(range(37))


def test_label_smoothing_is_in_the_training_loss_alone(raw_params, blobs, tmp_path) -> None:
    plain = train(settings(raw_params, epochs=1), blobs, tmp_path / "1").history[0]
    smooth = train(settings(raw_params, epochs=1, label_smoothing=0.3), blobs, tmp_path / "2")
    assert smooth.history[0].train_loss > plain.train_loss
    again = model()
    again.load_state_dict(smooth.weights)
    engine = TrainStep(again, settings(raw_params).train, SPEC, CPU)
    scores = validate(engine, blobs)
    assert scores is not None
    assert scores[0] == smooth.history[0].val_loss


def test_a_model_is_rebuilt_from_its_card(tmp_path) -> None:
    torch.manual_seed(1)
    from minet.models.registry import build

    trained = build("rrdb", num_classes=3, growth=8)
    record = {
        "builder": "minet.models.rrdb:rrdb",
        "arguments": {"growth": 8},
        "classes": ["a", "b", "c"],
    }
    weights, metadata = tmp_path / "m.safetensors", tmp_path / "m.json"
    save_model(weights, metadata, trained.state_dict(), record)
    loaded, again = load_model(weights, metadata)
    assert again == record
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.eval()(images), trained.eval()(images))
    first = weights.read_bytes()
    save_model(weights, metadata, trained.state_dict(), record)
    assert weights.read_bytes() == first, "the same weights are the same bytes"
    save_model(weights, metadata, trained.state_dict(), record | {"arguments": {"growth": 4}})
    with pytest.raises(InputError, match="not the weights that .*m.json describes"):
        load_model(weights, metadata)
    weights.write_bytes(first[: len(first) // 2])
    with pytest.raises(InputError, match="not the weights"):
        load_model(weights, metadata)
    save_model(weights, metadata, trained.state_dict(), record | {"builder": "os:system"})
    with pytest.raises(InputError, match="builder 'os:system' is none of this project's"):
        load_model(weights, metadata)


def test_history_rows_are_those_that_others_rely_on() -> None:
    columns = list(EpochRecord.__dataclass_fields__)
    assert columns == ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]


class Scheduled(nn.Module):
    """A layer that follows the epochs, and says so in a buffer."""

    epochs: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epochs", torch.full((1,), -1.0))
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)
        self.epochs.fill_(epoch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1 + self.epochs)


def test_layers_with_a_schedule_are_told_each_epoch_and_the_best_one_is_kept(
    raw_params: dict[str, Any], blobs: ListSource, tmp_path: Path
) -> None:
    run = settings(raw_params, epochs=4)
    layer = Scheduled()
    outcome = train(run, blobs, tmp_path / "r", network=nn.Sequential(layer, model()))
    assert layer.told == [0, 1, 2, 3]
    assert outcome.weights["0.epochs"].item() == outcome.best.epoch


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_run_asked_to_stop_saves_at_once_and_ends_the_same_when_taken_up(
    raw_params, blobs, tmp_path, at: int, number: signal.Signals
) -> None:
    """Asked before step `at` of 15; nothing was due to be saved."""
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    interrupt, taken = Interrupt(patient=False), 0

    def ask(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del epoch, done, total
        nonlocal taken
        for batch in batches:
            taken += 1
            if taken == at:
                signal.raise_signal(number)
            yield batch

    run = replace(prepared(settings(raw_params), blobs, tmp_path / "r", ask), interrupt=interrupt)
    with run.store.lock(), interrupt.listening(), pytest.raises(InterruptedRun) as stopped:
        fit(run)
    assert stopped.value.exit_code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert taken == at, "the run went on"
    blobs.served = 0
    assert_same(train(settings(raw_params), blobs, tmp_path / "r"), expected)
    validated = (at - 1) // 5  # a run asked in the last step of an epoch has yet to validate it
    assert blobs.served == (15 - at) + 5 * (3 - validated), "a step was done again"


def test_a_run_asked_to_stop_while_it_validates_is_not_made_to_finish(
    raw_params, blobs, tmp_path
) -> None:
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    interrupt = Interrupt(patient=False)

    class Asks(ListSource):
        def batches(self, order: IndexArray) -> Iterator[Batch]:
            for number, batch in enumerate(super().batches(order)):
                if number == 2:
                    interrupt.signal = signal.SIGTERM
                yield batch

    val = Asks(blobs.images, blobs.labels, 8)
    run = prepared(settings(raw_params), blobs, tmp_path / "r")
    with run.store.lock(), pytest.raises(InterruptedRun):
        fit(replace(run, val=val, interrupt=interrupt))
    assert val.served == 3
    blobs.served = 0
    assert_same(train(settings(raw_params), blobs, tmp_path / "r"), expected)
    assert blobs.served == 10 + 15, "the first epoch was trained again"


EXTRAS = {
    "accumulation_steps": 3, "initial_px": 8, "growth_epochs": 2.0, "ema_decay": 0.9, "max_grad_norm": 0.5,
    "optimizer": "sgd", "nesterov": True, "decay_norm_and_bias": False, "weight_decay": 0.01,
    "label_smoothing": 0.1, "precision": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("kill_at", [2, 7, 13])
def test_a_run_with_all_extras_cut_at_any_step_ends_the_same(
    raw_params, blobs, tmp_path, kill_at: int
) -> None:
    raw_params["train"]["augment"] |= {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    run = settings(raw_params, **EXTRAS)
    network = [pooled() for _ in range(3)]
    expected = train(run, blobs, tmp_path / "whole", network=network[0])
    with pytest.raises(Killed):
        train(
            run, blobs, tmp_path / "r", cutting(kill_at), save_every_s=0, network=network[1]
        )  # fmt: skip
    assert_same(train(run, blobs, tmp_path / "r", network=network[2]), expected)


def pooled() -> nn.Module:
    """A tiny model for images of any side."""
    torch.manual_seed(0)
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *pool, nn.Linear(8, 2)
    )  # fmt: skip


def test_parts_of_a_batch_make_the_step_of_the_whole(raw_params, blobs, tmp_path) -> None:
    """Where no layer looks at the batch: 37 images in batches of 8, each in 3 parts."""
    blobs.images, blobs.labels, blobs.count = blobs.images[:37], blobs.labels[:37], 37
    outcomes = []
    for parts in (1, 3):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        run = settings(raw_params, accumulation_steps=parts, optimizer="sgd", lr=0.001)
        outcomes.append(train(run, blobs, tmp_path / str(parts), network=network))
    for one, other in zip(*(outcome.history for outcome in outcomes), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)


def test_averaged_weights_are_those_that_are_scored_and_kept(raw_params, blobs, tmp_path) -> None:
    """Against an average followed by hand from the weights after each step."""
    run = settings(raw_params, ema_decay=0.9, epochs=1, augment=raw_params["train"]["augment"])
    network = model()
    means = [parameter.detach().clone() for parameter in network.parameters()]
    steps = 0

    def follow() -> None:
        decay = min(0.9, (1 + steps) / (10 + steps))
        for mean, parameter in zip(means, network.parameters(), strict=True):
            mean.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    def note(batches: Iterator[Batch], *_: int) -> Iterator[Batch]:
        nonlocal steps
        for batch in batches:
            yield batch
            steps += 1
            follow()

    outcome = train(run, blobs, tmp_path / "r", note, network=network)
    names = [name for name, _ in network.named_parameters()]
    for name, mean in zip(names, means, strict=True):
        assert torch.allclose(outcome.weights[name], mean, atol=1e-6), name
        assert not torch.equal(outcome.weights[name], network.state_dict()[name])
    kept = model()
    kept.load_state_dict(outcome.weights)
    scores = validate(TrainStep(kept, settings(raw_params).train, SPEC, CPU), blobs)
    assert scores == (outcome.best.val_loss, outcome.best.val_accuracy)


def test_a_long_gradient_is_cut_to_its_length(raw_params, blobs) -> None:
    run = settings(raw_params, max_grad_norm=1e-3, optimizer="sgd", lr=1.0, momentum=0.0)
    network = model()
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    engine = TrainStep(network, run.train, SPEC, CPU)
    batch = next(blobs.batches(np.arange(8)))
    engine.step(batch, AugmentParams(), images=8, lr=1.0, image_size=16)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_gradients_lie_in_memory_as_their_weights_do(raw_params, blobs) -> None:
    """A fused optimizer takes one for the other, element by element."""
    network = model()
    engine = TrainStep(network, settings(raw_params).train, SPEC, CPU)
    engine.step(next(blobs.batches(np.arange(8))), AugmentParams(), images=8, lr=0.1, image_size=16)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride(), name


def test_reduced_precision_computes_in_it_and_keeps_weights_and_losses_whole(
    raw_params, blobs, tmp_path
) -> None:
    seen = []
    network = model()
    network[0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    outcome = train(settings(raw_params, precision="bfloat16"), blobs, tmp_path, network=network)
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in outcome.weights.values()} == {torch.float32, torch.int64}
    assert outcome.best.val_accuracy > 0.9


# --- planes that are given, validation images that are changed --------------------------------


def narrow(planes: int) -> nn.Module:
    """A tiny model of so many planes, with batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(planes, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 14 * 14, 2),
    )  # fmt: skip


def unshuffled(raw_params: dict[str, Any], **changes: Any) -> RunSettings:
    """A short recipe that leaves the planes in their order."""
    run = settings(raw_params)
    augment = run.train.augment.model_copy(update={"channel_shuffle": 0.0})
    train = run.train.model_copy(update={"augment": augment} | changes)
    return run.model_copy(update={"train": train})


@pytest.mark.parametrize(
    ("channels", "channel_mode", "planes"),
    [("GB", "slice", 2), ("R", "slice", 1), ("RG", "sigmoid", 2), ("RB", "zero", 3)],
)
def test_training_works_on_the_planes_that_are_given(
    raw_params, blobs, tmp_path, *, channels: str, channel_mode: str, planes: int
) -> None:
    """And is scored on them: the best epoch's loss is that of its weights on these planes."""
    run = unshuffled(raw_params, channels=channels, channel_mode=channel_mode)
    form = replace(SPEC, channels=channels, channel_mode=channel_mode)
    blobs.labels = blobs.images.float().mean(dim=(1, 2, 3)).gt(90).long()
    if channel_mode == "sigmoid":  # which tells apart only the darkest
        blobs.images = blobs.images // 60
    outcome = train(run, blobs, tmp_path / "r", network=narrow(planes), form=form)
    assert outcome.history[-1].train_loss < outcome.history[0].train_loss
    assert outcome.best.val_accuracy > 0.9
    best = narrow(planes)
    best.load_state_dict(outcome.weights)
    again = validate(TrainStep(best, run.train, form, CPU), blobs)
    assert again == (outcome.best.val_loss, outcome.best.val_accuracy)
    given = list(input_channels(channels, channel_mode))
    pixels = blobs.images[:, given].float() / 255
    if channel_mode == "sigmoid":
        pixels = blobs.images[:, given].float().sigmoid()
    if channel_mode == "zero":
        pixels[:, 1] = 0
    with torch.inference_mode():
        logits = best.eval()((pixels - 0.5) / 0.25)
    by_hand = nn.functional.cross_entropy(logits, blobs.labels).item()
    assert outcome.best.val_loss == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize(
    ("channels", "channel_mode", "planes"),
    [("RGB", "zero", 3), ("GB", "zero", 3), ("GB", "slice", 2), ("B", "sigmoid", 1)],
)
def test_a_rank_without_images_passes_as_many_planes_as_the_others(
    raw_params, channels: str, channel_mode: str, planes: int
) -> None:
    """As it does in the step whose last images are others'."""
    run = unshuffled(raw_params, channels=channels, channel_mode=channel_mode)
    form = replace(SPEC, channels=channels, channel_mode=channel_mode)
    engine = TrainStep(narrow(planes), run.train, form, CPU)
    nothing = Batch(
        torch.zeros((0, 3, 16, 16), dtype=torch.uint8),
        torch.zeros(0, dtype=torch.int64),
        np.zeros(0, np.int64),
    )
    inputs, labels, shares = engine._prepared(nothing, AugmentParams(), 12)
    assert inputs.shape == (0, planes, 12, 12)
    assert inputs.dtype == torch.float32
    assert (len(labels), shares) == (0, None)
    loss, hits = engine.step(nothing, AugmentParams(), images=1, lr=0.1, image_size=16)
    assert (loss.item(), hits.item()) == (0, 0)


def test_a_last_batch_of_one_image_is_tried_with_the_planes_that_are_given(
    raw_params, blobs, tmp_path
) -> None:
    form = replace(SPEC, channels="GB", channel_mode="slice")
    run = unshuffled(raw_params)
    small = nn.Sequential(nn.Conv2d(2, 4, 16), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    some = prepared(run, blobs, tmp_path / "r", network=small, form=form)
    with pytest.raises(InputError, match="cannot be trained on at 16 px"):
        check_last_batch(replace(some, count=17))
    larger = prepared(run, blobs, tmp_path / "r", network=narrow(2), form=form)
    check_last_batch(replace(larger, count=17))


def asked_of_validation(raw_params: dict[str, Any], *, cropped: bool, shuffle: float) -> Any:
    """Give what is done to validation images in a run with slips of the reports."""
    train = settings(raw_params).train
    slips = {"random_test_crop": cropped, "shuffle_validation": shuffle}
    return scored_augment(
        train.augment, train.compat.model_copy(update=slips), shuffle=slips["shuffle_validation"]
    )


CROPPED, SHUFFLED = {"cropped": True, "shuffle": 0.0}, {"cropped": False, "shuffle": 0.6}


@pytest.mark.parametrize("asked", [CROPPED, SHUFFLED], ids=["cropped", "shuffled"])
@pytest.mark.parametrize("batch_size", [8, 7, 40])
def test_validation_images_are_changed_as_the_plan_says(
    raw_params, blobs, asked: dict[str, Any], batch_size: int
) -> None:
    scored = asked_of_validation(raw_params, **asked)
    plan = plan_epoch(40, 16, scored, 77, 2)
    engine = TrainStep(model(), settings(raw_params).train, SPEC, CPU)
    blobs.batch_size = batch_size
    found, plain = validate(engine, blobs, plan), validate(engine, blobs)
    assert found is not None
    assert plain is not None
    inputs = to_input(blobs.images, SPEC.to(CPU), AugmentParams.from_plan(plan, np.arange(40), CPU))
    with torch.inference_mode():
        logits = model().eval()(inputs)
    by_hand = nn.functional.cross_entropy(logits, blobs.labels).item()
    assert found[0] == pytest.approx(by_hand, abs=1e-5)
    assert found[1] == (logits.argmax(dim=1) == blobs.labels).double().mean().item()
    assert abs(found[0] - plain[0]) > 1e-4


@pytest.mark.parametrize("asked", [None, CROPPED, SHUFFLED], ids=["not", "cropped", "shuffled"])
def test_what_is_done_to_validation_images_is_drawn_anew_each_epoch(
    raw_params, blobs, tmp_path, asked: dict[str, Any] | None
) -> None:
    """A model that does not change scores another loss each time, if anything is drawn."""
    scored = None if asked is None else asked_of_validation(raw_params, **asked)
    torch.manual_seed(0)
    still = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    run = settings(raw_params, optimizer="sgd", lr=1e-30)
    outcome = train(run, blobs, tmp_path / "r", network=still, scored=scored)
    losses = {record.val_loss for record in outcome.history}
    assert len(losses) == (1 if asked is None else 3)


@pytest.mark.parametrize("kill_at", [3, 5, 7, 12])
@pytest.mark.parametrize("asked", [CROPPED, SHUFFLED], ids=["cropped", "shuffled"])
def test_a_run_that_changes_validation_images_is_the_same_wherever_it_is_cut(
    raw_params, blobs, tmp_path, asked: dict[str, Any], kill_at: int
) -> None:
    named: dict[str, Any] = {"scored": asked_of_validation(raw_params, **asked)}
    run, cut = settings(raw_params, lr=1e-4), cutting(kill_at)
    expected = train(run, blobs, tmp_path / "whole", **named)
    with pytest.raises(Killed):
        train(run, blobs, tmp_path / "cut", cut, save_every_s=0, **named)
    assert_same(train(run, blobs, tmp_path / "cut", **named), expected)
    plain = train(run, blobs, tmp_path / "plain")
    ones, others = (
        [(record.train_loss, record.lr) for record in outcome.history]
        for outcome in (expected, plain)
    )
    assert ones == others, "what is done to validation images changed the training"
    pairs = zip(expected.history, plain.history, strict=True)
    assert all(one.val_loss != other.val_loss for one, other in pairs)


@pytest.mark.slow
def test_a_compiled_run_is_that_of_the_model_as_it_is(raw_params, blobs, tmp_path) -> None:
    """37 images: the last, smaller batch runs as it is; compiling takes half a minute."""
    blobs.images, blobs.labels, blobs.count = blobs.images[:37], blobs.labels[:37], 37
    outcomes = [
        train(
            settings(raw_params, compile=choice, optimizer="sgd", lr=0.001),
            *(blobs, tmp_path / choice),
            network=nn.Sequential(*list(model())[:-2], model()[-1]),  # dropout draws otherwise
        )
        for choice in ("never", "always")
    ]
    for one, other in zip(*(outcome.history for outcome in outcomes), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-5)
