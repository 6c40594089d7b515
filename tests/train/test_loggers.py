"""Logs for TensorBoard and DVCLive, read back with their own readers."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from minet.train.loggers import DVCLiveLogger, Logger, TensorBoardLogger
from minet.train.state import EpochRecord

TITLES = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder: DVCLive opens the repository that it is in and never closes it."""
    monkeypatch.chdir(tmp_path)


def _record(epoch: int, offset: float = 0.0) -> EpochRecord:
    """Return numbers that differ from each other and from those of other epochs."""
    values = [offset + epoch + column / 7 for column in range(5)]
    return EpochRecord(epoch, *values)


def _values(record: EpochRecord) -> dict[str, float]:
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    return {title: getattr(record, name) for title, name in zip(TITLES, names, strict=True)}


def _model(value: float = 0.5) -> nn.Module:
    """Return a model with nested names, all weights the same."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def _log(logger: Logger, epochs: range, offset: float = 0.0, history: int = 0) -> list[EpochRecord]:
    """Log epochs one by one as the loop does, each with the history before it."""
    records = [_record(epoch) for epoch in range(history)]
    for epoch in epochs:
        records.append(_record(epoch, offset))
        logger.log(records, _model(epoch + offset))
    return records


def _read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    return events.Reload()


def _scalars(events: EventAccumulator, title: str) -> dict[int, float]:
    scalars = events.Scalars(title)
    assert len({event.step for event in scalars}) == len(scalars), "a step is there twice"
    return {event.step: event.value for event in scalars}


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


# --- TensorBoard -----------------------------------------------------------------------------


def test_tensorboard_has_all_scalars_of_all_epochs(tmp_path: Path) -> None:
    records = _log(TensorBoardLogger(tmp_path / "run"), range(4))
    events = _read(tmp_path / "run")
    assert sorted(events.Tags()["scalars"]) == sorted(TITLES)
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in records}
        assert _scalars(events, title) == pytest.approx(expected, rel=1e-6)


def test_tensorboard_has_histograms_of_all_weights_of_all_epochs(tmp_path: Path) -> None:
    """With the number of weights, their sum, minimum and maximum."""
    _log(TensorBoardLogger(tmp_path / "run"), range(3))
    events = _read(tmp_path / "run")
    sizes = {name.replace(".", "/"): one.numel() for name, one in _model().named_parameters()}
    assert set(events.Tags()["histograms"]) == set(sizes)
    assert "2/0/weight" in sizes
    for name, size in sizes.items():
        histograms = {event.step: event.histogram_value for event in events.Histograms(name)}
        assert list(histograms) == [0, 1, 2]
        for epoch, histogram in histograms.items():
            assert histogram.num == size
            assert (histogram.min, histogram.max) == (epoch, epoch)
            assert histogram.sum == pytest.approx(epoch * size)


def test_histograms_count_the_weights_by_value(tmp_path: Path) -> None:
    model = nn.Linear(100, 40, bias=False)
    TensorBoardLogger(tmp_path / "run").log([_record(0)], model)
    (event,) = _read(tmp_path / "run").Histograms("weight")
    weights = model.weight.detach().double().numpy().ravel()
    histogram = event.histogram_value
    assert histogram.sum_squares == pytest.approx((weights**2).sum())
    limits = np.array([-math.inf, *histogram.bucket_limit])
    counts, _ = np.histogram(weights, bins=limits)
    assert abs(counts - np.array(histogram.bucket)).sum() <= 2  # a value on the edge of a bin
    assert sum(histogram.bucket) == weights.size


def test_tensorboard_can_read_the_log_during_the_run(tmp_path: Path) -> None:
    """Each epoch is on the disk once it is logged."""
    logger, records = TensorBoardLogger(tmp_path / "run"), []
    for epoch in range(3):
        records.append(_record(epoch))
        logger.log(records, _model())
        assert list(_scalars(_read(tmp_path / "run"), "val/loss")) == list(range(epoch + 1))


def test_a_resumed_run_hides_what_a_killed_one_wrote_of_the_same_epochs(
    tmp_path: Path,
) -> None:
    """The first was killed in its sixth epoch; its last save is of the end of the second.

    The resumed run logs from the third epoch on.
    """
    killed = _log(TensorBoardLogger(tmp_path / "run"), range(5))
    again = _log(TensorBoardLogger(tmp_path / "run"), range(2, 8), offset=0.25, history=2)
    events = _read(tmp_path / "run")
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in [*killed[:2], *again[2:]]}
        assert _scalars(events, title) == pytest.approx(expected, rel=1e-6)
    steps = [event.step for event in events.Histograms("0/weight")]
    assert sorted(steps) == list(range(8))
    last = {event.step: event.histogram_value.max for event in events.Histograms("0/weight")}
    assert [last[epoch] for epoch in (0, 1, 2, 4)] == [0, 1, 2.25, 4.25]


def test_tensorboard_files_are_not_created_before_the_first_epoch(tmp_path: Path) -> None:
    TensorBoardLogger(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_logging_does_not_change_the_model(tmp_path: Path) -> None:
    model = _model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for logger in (TensorBoardLogger(tmp_path / "board"), DVCLiveLogger(tmp_path / "live")):
        logger.log([_record(0)], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.requires_grad and one.grad is not None for one in model.parameters())


# --- DVCLive ---------------------------------------------------------------------------------


def _plot(folder: Path, title: str) -> dict[int, float]:
    """Return the values of a plot by step."""
    header, *rows = (folder / "plots" / "metrics" / f"{title}.tsv").read_text().splitlines()
    assert header == f"step\t{title.rpartition('/')[2]}"
    pairs = [row.split("\t") for row in rows]
    assert len({step for step, _ in pairs}) == len(pairs), "a step is there twice"
    return {int(step): float(value) for step, value in pairs}


def test_dvclive_has_all_scalars_of_all_epochs_and_a_summary_of_the_last(tmp_path: Path) -> None:
    records = _log(DVCLiveLogger(tmp_path / "live"), range(4))
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


def test_dvclive_can_read_the_log_during_the_run(tmp_path: Path) -> None:
    logger, records = DVCLiveLogger(tmp_path / "live"), []
    for epoch in range(3):
        records.append(_record(epoch))
        logger.log(records, _model())
        assert list(_plot(tmp_path / "live", "val/loss")) == list(range(epoch + 1))
        assert json.loads((tmp_path / "live" / "metrics.json").read_text())["step"] == epoch


def test_dvclive_has_the_whole_history_of_a_resumed_run(tmp_path: Path) -> None:
    """What a killed run wrote of the same epochs is gone; the epochs before are there."""
    killed = _log(DVCLiveLogger(tmp_path / "live"), range(5))
    again = _log(DVCLiveLogger(tmp_path / "live"), range(2, 8), offset=0.25, history=2)
    for title in TITLES:
        expected = {record.epoch: _values(record)[title] for record in [*killed[:2], *again[2:]]}
        assert _plot(tmp_path / "live", title) == expected


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a Git and DVC repository with a pipeline, in which the test runs."""
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
def test_loggers_write_only_to_their_folders_and_do_not_touch_the_pipeline(
    repository: Path, monkeypatch: pytest.MonkeyPatch, *, stage: bool
) -> None:
    """Outside of DVC and in a stage of `dvc repro`, which runs in the repository."""
    if stage:
        monkeypatch.setenv("DVC_ROOT", str(repository))
        monkeypatch.setenv("DVC_STAGE", "train")
    before, head = _files(repository), _head(repository)
    _log(DVCLiveLogger(Path("out", "live")), range(2))
    _log(TensorBoardLogger(Path("out", "board")), range(2))
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
    """Return all refs of a repository: branches, experiments, stashes."""
    command = ["git", "-C", str(repository), "for-each-ref"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_run_without_an_epoch_does_not_touch_the_log_of_another(tmp_path: Path) -> None:
    """A second process of the same settings is rejected before its first epoch."""
    _log(DVCLiveLogger(tmp_path / "live"), range(3))
    before = {file: file.read_bytes() for file in (tmp_path / "live").rglob("*") if file.is_file()}
    DVCLiveLogger(tmp_path / "live")
    after = {file: file.read_bytes() for file in (tmp_path / "live").rglob("*") if file.is_file()}
    assert after == before
