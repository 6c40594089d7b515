"""Snapshots are copied at once, written atomically in the background, and belong to one run."""

import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minet.core.errors import InputError, InterruptedRun
from minet.train.snapshot import SnapshotStore, fingerprint

SAVE = torch.save


class Gate:
    """Block each write until the gate is opened."""

    def __init__(self) -> None:
        self._open, self.reached = threading.Event(), threading.Event()

    def save(self, state: Any, file: Any) -> None:
        self.reached.set()
        assert self._open.wait(20)
        SAVE(state, file)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Return a closed gate in front of the disk; it is opened when the test ends."""
    gate = Gate()
    monkeypatch.setattr(torch, "save", gate.save)
    yield gate
    gate.open()


def _open_after(gate: Gate, seconds: float) -> None:
    threading.Timer(seconds, gate.open).start()


def _loaded(folder: Path) -> dict[str, Any]:
    state = SnapshotStore(folder, 1).load()
    assert state is not None
    return state


def _same(one: Any, other: Any) -> bool:
    """Whether two states are equal; a list equals a tuple of the same values."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


# --- content -----------------------------------------------------------------------------------


def test_a_save_copies_the_state_at_once(tmp_path: Path, gate: Gate) -> None:
    """However deeply nested: changes made during the write are not written."""
    weights, mean, moment = torch.ones(4), torch.full((3,), 2.0), torch.tensor(3.0)
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        nested = {"history": [{"loss": 0.5}], "mean": [mean, (moment,)], "epoch": 7}
        store.save({"model": {"w": weights}, "state": nested})
        assert gate.reached.wait(20)
        for tensor in (weights, mean, moment):
            tensor.fill_(-1)
        nested["history"].append({"loss": 0.25})
        nested["history"][0]["loss"] = 9.0
        nested["epoch"] = 8
        gate.open()
    loaded = _loaded(tmp_path / "r")
    assert torch.equal(loaded["model"]["w"], torch.ones(4))
    assert torch.equal(loaded["state"]["mean"][0], torch.full((3,), 2.0))
    assert loaded["state"]["mean"][1][0] == 3
    assert loaded["state"]["epoch"] == 7
    assert loaded["state"]["history"] == [{"loss": 0.5}]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_training_resumed_from_a_save_gives_the_same_bits(
    tmp_path: Path, kind: type[torch.optim.Optimizer]
) -> None:
    """A model and its optimizer, saved after 3 steps, during which they make 3 more."""
    options: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def initial() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        return model, kind(model.parameters(), lr=0.1, fused=True, **options)  # type: ignore[call-arg]

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            images = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()

    model, optimizer = initial()
    train(model, optimizer, range(3))
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        train(model, optimizer, range(3, 6))
    state = _loaded(tmp_path / "r")
    resumed, resumed_optimizer = initial()
    resumed.load_state_dict(state["model"])
    resumed_optimizer.load_state_dict(state["optimizer"])
    train(resumed, resumed_optimizer, range(3, 6))
    assert _same(resumed.state_dict(), model.state_dict())
    assert _same(resumed_optimizer.state_dict(), optimizer.state_dict())


def test_loading_returns_none_if_nothing_was_saved(tmp_path: Path) -> None:
    assert SnapshotStore(tmp_path / "r", 1).load() is None
    with SnapshotStore(tmp_path / "r", 1).lock():
        assert SnapshotStore(tmp_path / "r", 1).load() is None


def test_a_save_replaces_those_before_it(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        for epoch in range(5):
            store.save({"epoch": epoch, "w": torch.full((2,), float(epoch))})
    assert _same(_loaded(tmp_path / "r"), {"epoch": 4, "w": torch.full((2,), 4.0)})
    assert {file.name for file in (tmp_path / "r").iterdir()} <= {"state.pt", "lock", "pid"}


@pytest.mark.gpu
def test_a_state_on_a_gpu_is_copied_there_and_loaded_on_the_cpu(tmp_path: Path) -> None:
    store, weights = SnapshotStore(tmp_path / "r", 1), torch.empty(1 << 24, device="cuda")
    with store.lock():
        for value in (1, 2, 3):
            weights.fill_(value)
            store.save({"w": weights})
            weights.fill_(-1)
            store.finish()
            state = store.load()
            assert state is not None
            assert state["w"].device.type == "cpu"
            assert (state["w"] == value).all()


# --- time --------------------------------------------------------------------------------------


def test_a_save_does_not_wait_for_the_disk(tmp_path: Path, gate: Gate) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 1})
        assert gate.reached.wait(20)
        assert store.load() is None
        gate.open()
        store.finish()
        assert store.load() == {"epoch": 1}


def test_a_save_waits_for_the_one_before_it(tmp_path: Path, gate: Gate) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 1})
        _open_after(gate, 0.2)
        store.save({"epoch": 2})
        assert store.copying_s > 0.15, "the wait is not counted as time that saves took"
        assert _loaded(tmp_path / "r")["epoch"] in (1, 2)
    assert _loaded(tmp_path / "r") == {"epoch": 2}


def test_the_time_that_training_spends_on_saves_is_measured(tmp_path: Path, gate: Gate) -> None:
    """The time of copying, not that of writing."""
    store = SnapshotStore(tmp_path / "r", 1)
    assert store.copying_s == 0
    began = time.monotonic()
    with store.lock():
        store.save({"w": torch.ones(1 << 20)})
        took = time.monotonic() - began
        time.sleep(0.05)
        gate.open()
        store.finish()
    assert 0 < store.copying_s <= took


def test_a_save_is_due_after_save_every_s_and_not_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "r").mkdir()
    store = SnapshotStore(tmp_path / "r", 60)
    now = 159.0
    assert not store.should_save()
    now = 160.0
    assert store.should_save()
    store.save({"epoch": 1})
    store.finish()
    assert not store.should_save()
    now = 219.0
    assert not store.should_save()
    now = 220.0
    assert store.should_save()


def test_no_save_is_due_while_the_last_one_is_written(tmp_path: Path, gate: Gate) -> None:
    """A disk that is slower than `save_every_s` must not slow down training."""
    store = SnapshotStore(tmp_path / "r", 1e-6)
    with store.lock():
        time.sleep(0.001)
        assert store.should_save()
        store.save({"epoch": 1})
        assert gate.reached.wait(20)
        time.sleep(0.001)
        assert not store.should_save()
        gate.open()
        until = time.monotonic() + 20
        while not store.should_save():
            assert time.monotonic() < until
            time.sleep(0.001)
        assert store.load() == {"epoch": 1}


class Ended(Exception):
    """Any error that ends a run."""


@pytest.mark.parametrize(
    "end", [None, Ended(), KeyboardInterrupt(), SystemExit(1), InterruptedRun(15)], ids=repr
)
def test_the_last_save_is_on_the_disk_however_the_run_ends(
    tmp_path: Path, gate: Gate, end: BaseException | None
) -> None:
    def run() -> None:
        store = SnapshotStore(tmp_path / "r", 1)
        with store.lock():
            store.save({"epoch": 3})
            _open_after(gate, 0.1)
            if end is not None:
                raise end

    if end is None:
        run()
    else:
        with pytest.raises(type(end)):
            run()
    assert _loaded(tmp_path / "r") == {"epoch": 3}


def test_a_run_is_locked_until_its_last_save_is_written(tmp_path: Path, gate: Gate) -> None:
    """Another process that got the lock sooner would resume from an older state."""
    refused: list[bool] = []

    def try_to_lock() -> None:
        try:
            with SnapshotStore(tmp_path / "r", 1).lock():
                refused.append(False)
        except InputError:
            refused.append(True)
        gate.open()

    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 1})
        other = threading.Timer(0.2, try_to_lock)
        other.start()
    other.join()
    assert refused == [True]
    with SnapshotStore(tmp_path / "r", 1).lock():
        pass


KILLED = """
import sys, time, torch
from pathlib import Path
from minet.train.snapshot import SnapshotStore

store = SnapshotStore(Path(sys.argv[1]), 1)
with store.lock():
    store.save({"epoch": 1})
    store.finish()

    save = torch.save

    def half(state, file):
        save({"half": 0}, file)
        print("half", flush=True)
        time.sleep(60)

    torch.save = half
    store.save({"epoch": 2})
    time.sleep(60)
"""


def test_a_process_killed_during_a_write_leaves_the_save_before_it(
    tmp_path: Path, root: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "r")]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert _loaded(tmp_path / "r") == {"epoch": 1}
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 3})
    assert _loaded(tmp_path / "r") == {"epoch": 3}


def test_delete_waits_for_the_last_save_and_removes_the_folder(tmp_path: Path, gate: Gate) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 1})
        _open_after(gate, 0.1)
        store.delete()
        assert not (tmp_path / "r").exists()
    assert not (tmp_path / "r").exists()


# --- errors ------------------------------------------------------------------------------------


def _disk_full(state: Any, file: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_failed_write_is_an_error_of_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    with store.lock():
        store.save({"epoch": 1})
        store.finish()
        monkeypatch.setattr(torch, "save", _disk_full)
        store.save({"epoch": 2})
        with pytest.raises(InputError) as error:
            store.save({"epoch": 3})
        assert str(error.value) == (
            f"the state of the run cannot be saved in {tmp_path / 'r'}: No space left on device; "
            "free some space there, then start the run again"
        )
        assert store.load() == {"epoch": 1}, "the save before it is damaged"
        monkeypatch.undo()
        store.save({"epoch": 4})  # the error is raised once
    assert _loaded(tmp_path / "r") == {"epoch": 4}


@pytest.mark.parametrize("method", ["finish", "delete"])
def test_a_failed_write_is_an_error_of_whatever_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    store = SnapshotStore(tmp_path / "r", 1)
    monkeypatch.setattr(torch, "save", _disk_full)
    with store.lock():
        store.save({"epoch": 2})
        with pytest.raises(InputError, match="cannot be saved in .*: No space left on device; "):
            getattr(store, method)()
        store.finish()
        assert (tmp_path / "r").exists()


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from minet.core.errors import InputError
from minet.train.snapshot import SnapshotStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SnapshotStore(Path(sys.argv[1]), 1)
with store.lock():
    store.save({"w": torch.zeros(10)})
    store.finish()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store.save({"w": torch.ones(1_000_000)})
    try:
        store.save({"w": torch.ones(1_000_000)})
    except InputError as error:
        print(error)
print(store.load()["w"].sum().item())
"""


def test_a_full_file_system_is_reported(tmp_path: Path, root: Path) -> None:
    """A real write of 4 MB with a limit of 0.1 MB, for which torch raises an error of its own."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "r")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    error, total = done.stdout.splitlines()
    assert error.startswith(f"the state of the run cannot be saved in {tmp_path / 'r'}: ")
    assert error.endswith("; free some space there, then start the run again")
    assert float(total) == 0, "the save before it is damaged"


def _lock(folder: Path) -> None:
    with SnapshotStore(folder, 1).lock():
        time.sleep(60)


def test_a_second_process_of_the_same_run_is_rejected_with_the_pid_of_the_first(
    tmp_path: Path,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_lock, args=(tmp_path / "r",))
    process.start()
    try:
        while not (tmp_path / "r" / "pid").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        with (
            pytest.raises(InputError, match=f"process {process.pid} is training the same"),
            SnapshotStore(tmp_path / "r", 1).lock(),
        ):
            pass
    finally:
        process.kill()
        process.join()
    with SnapshotStore(tmp_path / "r", 1).lock():
        pass  # the lock of a dead process is free


# --- fingerprint -------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_everything_that_changes_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stale snapshot must never be loaded; a harmless change must not discard a valid one."""
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


def test_a_fingerprint_covers_the_loaded_code_but_not_the_registry(
    tmp_path: Path, root: Path
) -> None:
    """Run in a copy of the tree, whose files can be edited."""
    shutil.copytree(root / "minet", tmp_path / "minet", ignore=shutil.ignore_patterns("__pyc*"))
    code = """
import sys, minet.models.rrdb
from pathlib import Path
from minet.train.snapshot import fingerprint

for name in ["", *sys.argv[1:]]:
    if name:
        with Path("minet", name).open("a") as file:
            file.write("# changed")
    print(fingerprint(1))
"""
    names = ["models/registry.py", "models/cnn3.py", "models/rrdb.py", "train/snapshot.py"]
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, *after = done.stdout.splitlines()
    assert after[:2] == [first, first], "an unused model, or the registry, changed the fingerprint"
    assert len({first, *after}) == 3
