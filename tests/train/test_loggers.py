"""What TensorBoard and DVCLive find of a run, read back with their own readers."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from minet.train.loggers import Told, to_dvclive, to_tensorboard
from minet.train.state import EpochRecord

TITLES = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder: DVCLive opens the repository that it is in, and leaves it open."""
    monkeypatch.chdir(tmp_path)


def _record(epoch: int, offset: float = 0.0) -> EpochRecord:
    """Give numbers that differ from each other and from those of other epochs."""
    values = [offset + epoch + place / 7 for place in range(5)]
    return EpochRecord(epoch, *values)


def _values(record: EpochRecord) -> dict[str, float]:
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    return {title: getattr(record, name) for title, name in zip(TITLES, names, strict=True)}


def _model(value: float = 0.5) -> nn.Module:
    """Give a model with names of several parts, all weights the same."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def _tell(tell: Told, epochs: range, offset: float = 0.0, history: int = 0) -> list[EpochRecord]:
    """Tell epochs one by one as the loop does, with all that were before each."""
    records = [_record(epoch) for epoch in range(history)]
    for epoch in epochs:
        records.append(_record(epoch, offset))
        tell(records, _model(epoch + offset))
    return records


def _read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    return events.Reload()


def _scalars(events: EventAccumulator, title: str) -> dict[int, float]:
    found = events.Scalars(title)
    assert len({event.step for event in found}) == len(found), "a step stands there twice"
    return {event.step: event.value for event in found}


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


# --- TensorBoard -----------------------------------------------------------------------------


def test_tensorboard_has_each_number_of_each_epoch_under_its_title(tmp_path: Path) -> None:
    records = _tell(to_tensorboard(tmp_path / "run"), range(4))
    events = _read(tmp_path / "run")
    assert sorted(events.Tags()["scalars"]) == sorted(TITLES)
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in records}
        assert _scalars(events, title) == pytest.approx(expected, rel=1e-6)


def test_tensorboard_has_histograms_of_all_weights_of_each_epoch(tmp_path: Path) -> None:
    """As many values as there are weights, their sum and their ends."""
    _tell(to_tensorboard(tmp_path / "run"), range(3))
    events = _read(tmp_path / "run")
    sizes = {name.replace(".", "/"): one.numel() for name, one in _model().named_parameters()}
    assert set(events.Tags()["histograms"]) == set(sizes)
    assert "2/0/weight" in sizes
    for name, size in sizes.items():
        found = {event.step: event.histogram_value for event in events.Histograms(name)}
        assert list(found) == [0, 1, 2]
        for epoch, histogram in found.items():
            assert histogram.num == size
            assert (histogram.min, histogram.max) == (epoch, epoch)
            assert histogram.sum == pytest.approx(epoch * size)


def test_histograms_are_of_the_weights_as_they_are_spread(tmp_path: Path) -> None:
    model = nn.Linear(100, 40, bias=False)
    to_tensorboard(tmp_path / "run")([_record(0)], model)
    (event,) = _read(tmp_path / "run").Histograms("weight")
    weights = model.weight.detach().double().numpy().ravel()
    histogram = event.histogram_value
    assert histogram.sum_squares == pytest.approx((weights**2).sum())
    limits = np.array([-math.inf, *histogram.bucket_limit])
    counts, _ = np.histogram(weights, bins=limits)
    assert abs(counts - np.array(histogram.bucket)).sum() <= 2  # a value on a border
    assert sum(histogram.bucket) == weights.size


def test_tensorboard_can_be_watched_while_the_run_lasts(tmp_path: Path) -> None:
    """Each epoch is on the disk when it has been told."""
    tell, records = to_tensorboard(tmp_path / "run"), []
    for epoch in range(3):
        records.append(_record(epoch))
        tell(records, _model())
        assert list(_scalars(_read(tmp_path / "run"), "val/loss")) == list(range(epoch + 1))


def test_a_run_that_goes_on_hides_what_a_killed_one_wrote_of_the_same_epochs(
    tmp_path: Path,
) -> None:
    """The first was killed in its sixth epoch, but its last save is of the end of the third.

    What is taken up is told at once, with the third epoch as the last.
    """
    killed = _tell(to_tensorboard(tmp_path / "run"), range(5))
    again = _tell(to_tensorboard(tmp_path / "run"), range(2, 8), offset=0.25, history=2)
    events = _read(tmp_path / "run")
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in [*killed[:2], *again[2:]]}
        assert _scalars(events, title) == pytest.approx(expected, rel=1e-6)
    steps = [event.step for event in events.Histograms("0/weight")]
    assert sorted(steps) == list(range(8))
    last = {event.step: event.histogram_value.max for event in events.Histograms("0/weight")}
    assert [last[epoch] for epoch in (0, 1, 2, 4)] == [0, 1, 2.25, 4.25]


def test_nothing_is_written_for_tensorboard_before_there_is_something_to_tell(
    tmp_path: Path,
) -> None:
    to_tensorboard(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_telling_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = _model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for tell in (to_tensorboard(tmp_path / "board"), to_dvclive(tmp_path / "live")):
        tell([_record(0)], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.requires_grad and one.grad is not None for one in model.parameters())


# --- DVCLive ---------------------------------------------------------------------------------


def _plot(folder: Path, title: str) -> dict[int, float]:
    """Give the values of a plot by their steps."""
    header, *rows = (folder / "plots" / "metrics" / f"{title}.tsv").read_text().splitlines()
    assert header == f"step\t{title.rpartition('/')[2]}"
    pairs = [row.split("\t") for row in rows]
    assert len({step for step, _ in pairs}) == len(pairs), "a step stands there twice"
    return {int(step): float(value) for step, value in pairs}


def test_dvclive_has_each_number_of_each_epoch_and_a_summary_of_the_last(tmp_path: Path) -> None:
    records = _tell(to_dvclive(tmp_path / "live"), range(4))
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in records}
        assert _plot(tmp_path / "live", title) == expected
    last = records[-1]
    assert json.loads((tmp_path / "live" / "metrics.json").read_text()) == {
        "train": {"loss": last.train_loss, "accuracy": last.train_accuracy},
        "val": {"loss": last.val_loss, "accuracy": last.val_accuracy},
        "lr": last.lr,
        "step": 3,
    }


def test_dvclive_can_be_watched_while_the_run_lasts(tmp_path: Path) -> None:
    tell, records = to_dvclive(tmp_path / "live"), []
    for epoch in range(3):
        records.append(_record(epoch))
        tell(records, _model())
        assert list(_plot(tmp_path / "live", "val/loss")) == list(range(epoch + 1))
        assert json.loads((tmp_path / "live" / "metrics.json").read_text())["step"] == epoch


def test_dvclive_has_the_whole_story_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """What a killed one had written of the same epochs is gone, what came before is there."""
    killed = _tell(to_dvclive(tmp_path / "live"), range(5))
    again = _tell(to_dvclive(tmp_path / "live"), range(2, 8), offset=0.25, history=2)
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in [*killed[:2], *again[2:]]}
        assert _plot(tmp_path / "live", title) == expected


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a Git and DVC repository with a pipeline, in which the test runs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    from dvc.repo import Repo

    Repo.init().close()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", *who, "commit", "-q", "-m", "x"], check=True)
    return folder


@pytest.mark.parametrize("stage", [False, True])
def test_nothing_is_written_outside_the_folder_and_the_pipeline_is_left_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch, *, stage: bool
) -> None:
    """By hand and in a stage of `dvc repro`, which runs in the repository."""
    if stage:
        monkeypatch.setenv("DVC_ROOT", str(repository))
        monkeypatch.setenv("DVC_STAGE", "train")
    before, head = _files(repository), _head(repository)
    _tell(to_dvclive(Path("out", "live")), range(2))
    _tell(to_tensorboard(Path("out", "board")), range(2))
    written = _files(repository) - before
    assert all(name.startswith(("out/live/", "out/board/")) for name in written), written
    assert not any(Path(name).name == "dvc.yaml" for name in written)
    assert (repository / "dvc.yaml").read_text() == "stages: {}\n"
    assert _files(repository) >= before
    assert _head(repository) == head
    changed = subprocess.run(
        ["git", "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert changed.stdout == "?? out/\n"


def _head(repository: Path) -> str:
    """Give what all branches, experiments and stashes of a repository stand for."""
    command = ["git", "-C", str(repository), "for-each-ref"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_run_that_tells_nothing_leaves_the_figures_of_another_alone(tmp_path: Path) -> None:
    """A second process of the same settings is refused before its first epoch."""
    _tell(to_dvclive(tmp_path / "live"), range(3))
    before = {file: file.read_bytes() for file in (tmp_path / "live").rglob("*") if file.is_file()}
    to_dvclive(tmp_path / "live")
    after = {file: file.read_bytes() for file in (tmp_path / "live").rglob("*") if file.is_file()}
    assert after == before
