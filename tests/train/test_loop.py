"""The loop learns, keeps the best epoch, resumes at any step with the same bytes, stops on NaN."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minet.augment.channels import input_channels
from minet.augment.config import eval_augment
from minet.augment.plan import plan_epoch
from minet.augment.transforms import AugmentParams, to_input
from minet.core.arrays import IndexArray
from minet.core.errors import InputError, InterruptedRun
from minet.loader.batch import Batch
from minet.nn.checkpoint import load_model, save_model
from minet.train.interrupt import Interrupt
from minet.train.loop import check_last_batch, fit, validate
from minet.train.snapshot import SnapshotStore
from minet.train.step import TrainStep
from tests.helpers.small_run import (
    CPU,
    SPEC,
    assert_same,
    context_of,
    model,
    narrow,
    settings,
    train,
    unshuffled,
)
from tests.helpers.sources import ListSource


def test_training_learns_and_records_each_epoch(raw_params, blobs, tmp_path) -> None:
    run = settings(raw_params)
    result = train(run, blobs, tmp_path / "r")
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.best.val_accuracy > 0.9
    assert result.best == min(result.history, key=lambda record: record.val_loss)
    best = model()
    best.load_state_dict(result.weights)
    assert validate(TrainStep(best, run.train, SPEC, CPU), blobs) == (
        result.best.val_loss,
        result.best.val_accuracy,
    )


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(
    raw_params, blobs, tmp_path
) -> None:
    first = train(settings(raw_params), blobs, tmp_path / "1")
    assert_same(first, train(settings(raw_params), blobs, tmp_path / "2"))
    other = settings(raw_params).model_copy(update={"seed": 4})
    assert train(other, blobs, tmp_path / "3").history != first.history


class Killed(Exception):
    """The process is killed."""


def killed_at(step: int) -> Any:
    """Return a `steps` callback that raises Killed before a step, counted over the whole run."""
    taken = 0

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del epoch, done, total
        nonlocal taken
        for batch in batches:
            if taken == step:
                raise Killed
            taken += 1
            yield batch

    return steps


@pytest.mark.parametrize("kill_at", [1, 4, 5, 7, 10, 14])
def test_a_run_killed_at_any_step_and_resumed_gives_the_same_bytes(
    raw_params, blobs, tmp_path, kill_at: int
) -> None:
    """Saved after every step, killed before step `kill_at` of 15, resumed."""
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings(raw_params), blobs, tmp_path / "killed", killed_at(kill_at), save_every_s=0)
    blobs.served = 0
    resumed = train(settings(raw_params), blobs, tmp_path / "killed")
    assert_same(resumed, expected)
    validation = 5 * (3 - kill_at // 5)
    assert blobs.served == 15 - kill_at + validation, "a step before the kill was repeated"


def test_a_run_killed_after_its_last_save_only_writes_its_results(
    raw_params, blobs, tmp_path
) -> None:
    done = train(settings(raw_params), blobs, tmp_path / "r")
    blobs.served = 0
    written: list[Any] = []
    again = train(settings(raw_params), blobs, tmp_path / "r", written=written)
    assert_same(again, done)
    assert blobs.served == 0
    assert written == [done.history], "the history was not written again"


def nan_at(at: int) -> Any:
    """Return a `steps` callback that makes the images of step `at` of epoch 1 NaN."""

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del done, total
        for step, batch in enumerate(batches):
            if (epoch, step) == (1, at):
                images = torch.full_like(batch.images, torch.nan, dtype=torch.float32)
                yield Batch(images, batch.labels, batch.indices)
            else:
                yield batch

    return steps


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("save_every_s", [0, 1e9], ids=["saved each step", "saved each epoch"])
def test_a_loss_that_is_not_finite_stops_the_run_with_model_epoch_and_step(
    raw_params, blobs, tmp_path, at: int, save_every_s: float
) -> None:
    expected = rf"^cnn3: the training loss is nan at step {at} of epoch 1 \(both from 0\)"
    with pytest.raises(InputError, match=expected):
        train(settings(raw_params), blobs, tmp_path / "r", nan_at(at), save_every_s=save_every_s)
    state = SnapshotStore(tmp_path / "r", 1).load()
    assert state is not None
    saved = state["train_step"]["model"].values()
    assert all(tensor.isfinite().all() for tensor in saved), "a NaN was saved"


def test_the_error_of_a_diverging_run_suggests_a_lower_learning_rate(
    raw_params, blobs, tmp_path
) -> None:
    run = settings(raw_params, lr=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(InputError, match=r"try a lower train.lr \(it is 1e\+30\)"):
        train(run, blobs, tmp_path / "r")


@pytest.mark.parametrize("sizes", [(17, 8, 1), (5, 1, 1), (16, 8, 8)], ids=str)
def test_a_last_batch_of_one_image_is_rejected_if_batch_norm_cannot_use_it(
    raw_params, blobs, tmp_path, sizes: tuple[int, int, int]
) -> None:
    count, batch_size, accumulation_steps = sizes
    run = settings(raw_params, batch_size=batch_size, accumulation_steps=accumulation_steps)
    small = nn.Sequential(nn.Conv2d(3, 4, 16), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    one_pixel = context_of(run, blobs, tmp_path / "r", network=small)
    with pytest.raises(InputError, match=rf"train.batch_size is {batch_size} and train.accum"):
        check_last_batch(replace(one_pixel, train_count=count))
    larger = context_of(run, blobs, tmp_path / "r")  # a feature map of more pixels is enough
    check_last_batch(replace(larger, train_count=count))
    if batch_size > accumulation_steps:
        check_last_batch(replace(one_pixel, train_count=count + 1))


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


def test_label_smoothing_is_in_the_training_loss_only(raw_params, blobs, tmp_path) -> None:
    plain = train(settings(raw_params, epochs=1), blobs, tmp_path / "1").history[0]
    smooth = train(settings(raw_params, epochs=1, label_smoothing=0.3), blobs, tmp_path / "2")
    assert smooth.history[0].train_loss > plain.train_loss
    again = model()
    again.load_state_dict(smooth.weights)
    scores = validate(TrainStep(again, settings(raw_params).train, SPEC, CPU), blobs)
    assert scores[0] == smooth.history[0].val_loss


def test_a_model_is_rebuilt_from_its_metadata(tmp_path) -> None:
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
    with pytest.raises(InputError, match="builder 'os:system' is not in minet.models"):
        load_model(weights, metadata)


class Scheduled(nn.Module):
    """A layer with a schedule, whose state is a buffer."""

    epochs: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epochs", torch.full((1,), -1.0))
        self.seen: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.seen.append(epoch)
        self.epochs.fill_(epoch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1 + self.epochs)


def test_layers_with_a_schedule_get_each_epoch_and_the_best_state_is_kept(
    raw_params: dict[str, Any], blobs: ListSource, tmp_path: Path
) -> None:
    run = settings(raw_params, epochs=4)
    layer = Scheduled()
    result = train(run, blobs, tmp_path / "r", network=nn.Sequential(layer, model()))
    assert layer.seen == [0, 1, 2, 3]
    assert result.weights["0.epochs"].item() == result.best.epoch


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_run_asked_to_stop_saves_at_once_and_resumes_to_the_same_bytes(
    raw_params, blobs, tmp_path, at: int, number: signal.Signals
) -> None:
    """Asked before step `at` of 15, when no save is due."""
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    interrupt, taken = Interrupt(ignore_repeats=False), 0

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del epoch, done, total
        nonlocal taken
        for batch in batches:
            taken += 1
            if taken == at:
                signal.raise_signal(number)
            yield batch

    context = context_of(settings(raw_params), blobs, tmp_path / "r", steps)
    context = replace(context, interrupt=interrupt)
    with context.store.lock(), interrupt.listening(), pytest.raises(InterruptedRun) as stopped:
        fit(context)
    assert stopped.value.exit_code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert taken == at, "another step was made"
    blobs.served = 0
    assert_same(train(settings(raw_params), blobs, tmp_path / "r"), expected)
    validated = (at - 1) // 5  # a run stopped in the last step of an epoch has yet to validate it
    assert blobs.served == (15 - at) + 5 * (3 - validated), "a step was repeated"


def test_a_run_asked_to_stop_during_validation_stops_without_finishing_it(
    raw_params, blobs, tmp_path
) -> None:
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    interrupt = Interrupt(ignore_repeats=False)

    class Interrupting(ListSource):
        def batches(self, order: IndexArray) -> Iterator[Batch]:
            for number, batch in enumerate(super().batches(order)):
                if number == 2:
                    interrupt.signal = signal.SIGTERM
                yield batch

    val = Interrupting(blobs.images, blobs.labels, 8)
    context = context_of(settings(raw_params), blobs, tmp_path / "r")
    with context.store.lock(), pytest.raises(InterruptedRun):
        fit(replace(context, val=val, interrupt=interrupt))
    assert val.served == 3
    blobs.served = 0
    assert_same(train(settings(raw_params), blobs, tmp_path / "r"), expected)
    assert blobs.served == 10 + 15, "the first epoch was trained again"


EXTRAS = {
    "accumulation_steps": 3, "initial_px": 8, "growth_epochs": 2.0, "ema_decay": 0.9,
    "max_grad_norm": 0.5, "optimizer": "sgd", "nesterov": True, "decay_norm_and_bias": False,
    "weight_decay": 0.01, "label_smoothing": 0.1, "precision": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("kill_at", [2, 7, 13])
def test_a_run_with_all_extras_killed_at_any_step_gives_the_same_bytes(
    raw_params, blobs, tmp_path, kill_at: int
) -> None:
    raw_params["recipes"]["default"]["augment"] |= {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    run = settings(raw_params, **EXTRAS)
    network = [pooled() for _ in range(3)]
    expected = train(run, blobs, tmp_path / "whole", network=network[0])
    with pytest.raises(Killed):
        train(run, blobs, tmp_path / "r", killed_at(kill_at), save_every_s=0, network=network[1])
    assert_same(train(run, blobs, tmp_path / "r", network=network[2]), expected)


def pooled() -> nn.Module:
    """Return a tiny model for images of any size."""
    torch.manual_seed(0)
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *pool, nn.Linear(8, 2)
    )  # fmt: skip


# --- input channels, augmented validation images ----------------------------------------------


@pytest.mark.parametrize(
    ("channels", "channel_mode", "in_channels"),
    [("GB", "slice", 2), ("R", "slice", 1), ("RG", "sigmoid", 2), ("RB", "zero", 3)],
)
def test_training_uses_the_input_channels_of_the_recipe(
    raw_params, blobs, tmp_path, *, channels: str, channel_mode: str, in_channels: int
) -> None:
    """So does validation: the best epoch's loss is that of its weights on these channels."""
    run = unshuffled(raw_params, channels=channels, channel_mode=channel_mode)
    input_spec = replace(SPEC, channels=channels, channel_mode=channel_mode)
    blobs.labels = blobs.images.float().mean(dim=(1, 2, 3)).gt(90).long()
    if channel_mode == "sigmoid":  # which separates only the darkest
        blobs.images = blobs.images // 60
    result = train(run, blobs, tmp_path / "r", network=narrow(in_channels), input_spec=input_spec)
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.best.val_accuracy > 0.9
    best = narrow(in_channels)
    best.load_state_dict(result.weights)
    again = validate(TrainStep(best, run.train, input_spec, CPU), blobs)
    assert again == (result.best.val_loss, result.best.val_accuracy)
    given = list(input_channels(channels, channel_mode))
    pixels = blobs.images[:, given].float() / 255
    if channel_mode == "sigmoid":
        pixels = blobs.images[:, given].float().sigmoid()
    if channel_mode == "zero":
        pixels[:, 1] = 0
    with torch.inference_mode():
        logits = best.eval()((pixels - 0.5) / 0.25)
    by_hand = nn.functional.cross_entropy(logits, blobs.labels).item()
    assert result.best.val_loss == pytest.approx(by_hand, abs=1e-5)


def test_a_last_batch_of_one_image_is_checked_with_the_input_channels_of_the_recipe(
    raw_params, blobs, tmp_path
) -> None:
    input_spec = replace(SPEC, channels="GB", channel_mode="slice")
    run = unshuffled(raw_params)
    small = nn.Sequential(nn.Conv2d(2, 4, 16), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    one_pixel = context_of(run, blobs, tmp_path / "r", network=small, input_spec=input_spec)
    with pytest.raises(InputError, match="cnn3 cannot be trained at 16 px"):
        check_last_batch(replace(one_pixel, train_count=17))
    larger = context_of(run, blobs, tmp_path / "r", network=narrow(2), input_spec=input_spec)
    check_last_batch(replace(larger, train_count=17))


def val_augment_of(raw_params: dict[str, Any], *, cropped: bool, shuffle: float) -> Any:
    """Return the augmentation of validation images in a run with known bugs of the reports."""
    train = settings(raw_params).train
    bugs = {"random_test_crop": cropped, "shuffle_validation": shuffle}
    return eval_augment(
        train.augment, train.compat.model_copy(update=bugs), shuffle=bugs["shuffle_validation"]
    )


CROPPED, SHUFFLED = {"cropped": True, "shuffle": 0.0}, {"cropped": False, "shuffle": 0.6}


@pytest.mark.parametrize("bug", [CROPPED, SHUFFLED], ids=["cropped", "shuffled"])
@pytest.mark.parametrize("batch_size", [8, 7, 40])
def test_validation_images_are_augmented_by_their_plan(
    raw_params, blobs, bug: dict[str, Any], batch_size: int
) -> None:
    val_augment = val_augment_of(raw_params, **bug)
    plan = plan_epoch(40, 16, val_augment, 77, 2)
    train_step = TrainStep(model(), settings(raw_params).train, SPEC, CPU)
    blobs.batch_size = batch_size
    augmented, plain = validate(train_step, blobs, plan), validate(train_step, blobs)
    inputs = to_input(blobs.images, SPEC.to(CPU), AugmentParams.from_plan(plan, np.arange(40), CPU))
    with torch.inference_mode():
        logits = model().eval()(inputs)
    by_hand = nn.functional.cross_entropy(logits, blobs.labels).item()
    assert augmented[0] == pytest.approx(by_hand, abs=1e-5)
    assert augmented[1] == (logits.argmax(dim=1) == blobs.labels).double().mean().item()
    assert abs(augmented[0] - plain[0]) > 1e-4


@pytest.mark.parametrize("bug", [None, CROPPED, SHUFFLED], ids=["plain", "cropped", "shuffled"])
def test_the_augmentation_of_validation_images_is_drawn_anew_each_epoch(
    raw_params, blobs, tmp_path, bug: dict[str, Any] | None
) -> None:
    """A model that does not change has another loss in each epoch, if anything is drawn."""
    val_augment = None if bug is None else val_augment_of(raw_params, **bug)
    torch.manual_seed(0)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    run = settings(raw_params, optimizer="sgd", lr=1e-30)
    result = train(run, blobs, tmp_path / "r", network=constant, val_augment=val_augment)
    losses = {record.val_loss for record in result.history}
    assert len(losses) == (1 if bug is None else 3)


@pytest.mark.parametrize("kill_at", [3, 5, 7, 12])
@pytest.mark.parametrize("bug", [CROPPED, SHUFFLED], ids=["cropped", "shuffled"])
def test_a_run_that_augments_validation_images_gives_the_same_bytes_wherever_it_is_killed(
    raw_params, blobs, tmp_path, bug: dict[str, Any], kill_at: int
) -> None:
    val_augment = val_augment_of(raw_params, **bug)
    run, steps = settings(raw_params, lr=1e-4), killed_at(kill_at)
    expected = train(run, blobs, tmp_path / "whole", val_augment=val_augment)
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        train(run, blobs, killed, steps, save_every_s=0, val_augment=val_augment)
    assert_same(train(run, blobs, killed, val_augment=val_augment), expected)
    plain = train(run, blobs, tmp_path / "plain")
    ones, others = (
        [(record.train_loss, record.lr) for record in result.history]
        for result in (expected, plain)
    )
    assert ones == others, "augmenting validation images changed the training"
    pairs = zip(expected.history, plain.history, strict=True)
    assert all(one.val_loss != other.val_loss for one, other in pairs)
