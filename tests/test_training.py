"""The loop: learns, keeps the best epoch, resumes at any step with the same bytes, stops on nan."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ListSource
from torch import nn

from minet.augment import InputForm
from minet.batch import Batch
from minet.checkpoint import ResumeStore, fingerprint, load_model, save_model
from minet.data.plan import plan_epoch
from minet.errors import InputError
from minet.settings_train import RunSettings
from minet.training import (
    EpochRecord,
    Outcome,
    Trainer,
    Watcher,
    check_last_batch,
    fit,
    validate,
)

FORM = InputForm(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def settings(raw_params: dict[str, Any], **changes: Any) -> RunSettings:
    """A short recipe with every kind of augmentation, changed as asked."""
    train = raw_params["train"] | {"epochs": 3, "batch_size": 8, "input_px": 16, "lr": 0.01}
    train["augment"] |= {"rotation_degrees": 10.0, "channel_shuffle": 0.5}
    raw = {"model": "cnn3", "builder": "minet.models.cnn3:cnn3", "arguments": {}, "seed": 3}
    raw |= {"weights": "random", "fresh": [], "cache": "auto"}
    return RunSettings.model_validate_json(json.dumps(raw | {"train": train | changes}))


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


def train(
    run: RunSettings,
    source: ListSource,
    folder: Path,
    steps: Any = quiet,
    *,
    save_every_s: float = 1e9,
    written: list[list[EpochRecord]] | None = None,
) -> Outcome:
    """Train the tiny model on the source, which is its own validation split."""
    trainer = Trainer(model(), run, FORM, CPU)
    plan = partial(plan_epoch, source.count, 16, run.train.augment, run.seed)
    store = ResumeStore(folder, save_every_s)
    watcher = Watcher(steps, [].append if written is None else written.append)
    with store.hold():
        return fit(trainer, source, source, plan, store=store, watcher=watcher)


def assert_same(one: Outcome, other: Outcome) -> None:
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
    loss, accuracy = validate(best, blobs, FORM, CPU)
    assert (loss, accuracy) == (outcome.best.val_loss, outcome.best.val_accuracy)


def test_two_runs_are_the_same_bytes_and_another_seed_is_not(raw_params, blobs, tmp_path) -> None:
    first = train(settings(raw_params), blobs, tmp_path / "1")
    assert_same(first, train(settings(raw_params), blobs, tmp_path / "2"))
    other = settings(raw_params).model_copy(update={"seed": 4})
    assert train(other, blobs, tmp_path / "3").history != first.history


class Killed(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("kill_at", [1, 4, 5, 7, 10, 14])
def test_a_run_cut_at_any_step_ends_the_same(raw_params, blobs, tmp_path, kill_at: int) -> None:
    """Saved after every step, cut before step `kill_at` of 15, taken up again."""
    expected = train(settings(raw_params), blobs, tmp_path / "whole")
    taken = 0

    def cut(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del epoch, done, total
        nonlocal taken
        for batch in batches:
            if taken == kill_at:
                raise Killed
            taken += 1
            yield batch

    with pytest.raises(Killed):
        train(settings(raw_params), blobs, tmp_path / "cut", cut, save_every_s=0)
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
    for best_by, expected in (("loss", 1), ("accuracy", 2)):
        trainer = Trainer(model(), settings(raw_params, best_by=best_by), FORM, CPU)
        for loss, accuracy in rows:
            trainer.end_epoch(40, loss, accuracy, 0.1)
        assert trainer.best_epoch == expected, best_by


def poisoned(at: int) -> Any:
    """Give a `steps` that makes the labels of step `at` of epoch 1 the cause of a nan."""

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterator[Batch]:
        del done, total
        for step, batch in enumerate(batches):
            if (epoch, step) == (1, at):
                # no label is torch's -100: the mean over no image is not a number
                yield Batch(batch.images, torch.full_like(batch.labels, -100), batch.indices)
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
    state = ResumeStore(tmp_path / "r", 1).load(CPU)
    assert state is not None
    assert all(tensor.isfinite().all() for tensor in state["model"].values()), "poison was saved"


def test_a_diverging_run_is_told_what_to_try(raw_params, blobs, tmp_path) -> None:
    run = settings(raw_params, lr=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(InputError, match=r"try a lower train.lr \(it is 1e\+30\)"):
        train(run, blobs, tmp_path / "r")


def test_a_validation_loss_that_is_not_finite_stops_the_run(raw_params) -> None:
    trainer = Trainer(model(), settings(raw_params), FORM, CPU)
    with pytest.raises(InputError, match=r"cnn3: the validation loss is inf after step"):
        trainer.check_validation(float("inf"))


@pytest.mark.parametrize(("count", "batch_size"), [(17, 8), (5, 1)])
def test_a_last_batch_of_one_image_is_refused_where_batch_norm_cannot_take_it(
    raw_params, blobs, count: int, batch_size: int
) -> None:
    run = settings(raw_params, batch_size=batch_size)
    small = nn.Sequential(nn.Conv2d(3, 4, 16), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=rf"train.batch_size is {batch_size}: the last batch of "):
        check_last_batch(Trainer(small, run, FORM, CPU), count)
    check_last_batch(Trainer(model(), run, FORM, CPU), count)  # a larger map is enough
    if batch_size > 1:
        check_last_batch(Trainer(small, run, FORM, CPU), count + 1)


def test_a_save_is_due_after_its_time_and_not_before(monkeypatch, tmp_path) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "r").mkdir()
    store = ResumeStore(tmp_path / "r", 60)
    now = 159.0
    assert not store.due()
    now = 160.0
    assert store.due()
    store.save({"epoch": 1})
    assert not store.due()
    now = 220.0
    assert store.due()


def test_a_fingerprint_changes_with_all_that_changes_the_bytes(monkeypatch, tmp_path) -> None:
    """A stale state must never be taken up; a harmless change must not forget an honest one."""
    first = fingerprint({"lr": 0.1}, ["digest"], ["cpu", 2])
    assert fingerprint({"lr": 0.1}, ["digest"], ["cpu", 2]) == first
    others = [
        fingerprint({"lr": 0.3}, ["digest"], ["cpu", 2]),
        fingerprint({"lr": 0.1}, ["other"], ["cpu", 2]),
        fingerprint({"lr": 0.1}, ["digest"], ["cpu", 1]),
        fingerprint({"lr": 0.1}, ["digest"], ["NVIDIA H200", 2]),
    ]
    monkeypatch.setattr(torch, "__version__", "0.0.1")
    others.append(fingerprint({"lr": 0.1}, ["digest"], ["cpu", 2]))
    monkeypatch.undo()
    assert len({first, *others}) == len(others) + 1
    monkeypatch.setenv("MINET_WORKERS", "7")
    assert fingerprint({"lr": 0.1}, ["digest"], ["cpu", 2]) == first


def test_a_fingerprint_covers_the_code_that_is_loaded_but_not_the_table(tmp_path, root) -> None:
    """Run in a copy of the tree, whose files can be changed."""
    shutil.copytree(root / "minet", tmp_path / "minet", ignore=shutil.ignore_patterns("__pyc*"))
    code = "import minet.models.rrdb, minet.checkpoint as c; print(c.fingerprint(1))"

    def now() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    first = now()
    for name, same in (("models/__init__", True), ("models/cnn3", True), ("models/rrdb", False)):
        with (tmp_path / "minet" / f"{name}.py").open("a") as file:
            file.write("# changed\n")
        assert (now() == first) is same, name


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
    assert validate(again, blobs, FORM, CPU)[0] == smooth.history[0].val_loss


def _hold(folder: Path) -> None:
    with ResumeStore(folder, 1).hold():
        time.sleep(60)


def test_a_second_process_with_the_same_settings_is_told_which_is_first(tmp_path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path / "r",))
    process.start()
    try:
        while not (tmp_path / "r" / "pid").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        with (
            pytest.raises(InputError, match=f"process {process.pid} is training the same"),
            ResumeStore(tmp_path / "r", 1).hold(),
        ):
            pass
    finally:
        process.kill()
        process.join()
    with ResumeStore(tmp_path / "r", 1).hold():
        pass  # the dead process holds nothing


def test_a_model_is_rebuilt_from_its_card(tmp_path) -> None:
    torch.manual_seed(1)
    from minet.models import build

    trained = build("rrdb", num_classes=3, growth=8)
    record = {
        "builder": "minet.models.rrdb:rrdb",
        "arguments": {"growth": 8},
        "classes": ["a", "b", "c"],
    }
    weights, card = tmp_path / "m.safetensors", tmp_path / "m.json"
    save_model(weights, card, trained.state_dict(), record)
    loaded, again = load_model(weights, card)
    assert again == record
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.eval()(images), trained.eval()(images))
    first = weights.read_bytes()
    save_model(weights, card, trained.state_dict(), record)
    assert weights.read_bytes() == first, "the same weights are the same bytes"
    save_model(weights, card, trained.state_dict(), record | {"arguments": {"growth": 4}})
    with pytest.raises(InputError, match="not the weights that .*m.json describes"):
        load_model(weights, card)
    weights.write_bytes(first[: len(first) // 2])
    with pytest.raises(InputError, match="not the weights"):
        load_model(weights, card)
    save_model(weights, card, trained.state_dict(), record | {"builder": "os:system"})
    with pytest.raises(InputError, match="builder 'os:system' is none of this project's"):
        load_model(weights, card)


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

    def at_epoch(self, epoch: int) -> None:
        self.told.append(epoch)
        self.epochs.fill_(epoch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1 + self.epochs)


def test_layers_with_a_schedule_are_told_each_epoch_and_the_best_one_is_kept(
    raw_params: dict[str, Any], blobs: ListSource, tmp_path: Path
) -> None:
    run = settings(raw_params, epochs=4)
    layer = Scheduled()
    trainer = Trainer(nn.Sequential(layer, model()), run, FORM, CPU)
    plan = partial(plan_epoch, blobs.count, 16, run.train.augment, run.seed)
    store = ResumeStore(tmp_path / "state", 1e9)
    with store.hold():
        outcome = fit(
            trainer, blobs, blobs, plan, store=store, watcher=Watcher(quiet, [].append)
        )  # fmt: skip
    assert layer.told == [0, 1, 2, 3]
    assert outcome.weights["0.epochs"].item() == outcome.best.epoch
