"""Snapshots for resuming a run that was killed or asked to stop, keyed by fingerprint."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from minet.core.errors import InputError
from minet.core.files import atomic_write


def fingerprint(*parts: object) -> str:
    """Return a digest of all that a run's bytes depend on: parts as JSON, torch, the loaded code.

    Call it when all modules that the run uses are imported. The registry of models is not one of
    them: the parts name the builder, so that a new model invalidates no unfinished run.
    """
    root = Path(__file__).resolve().parents[2]
    versions = [torch.__version__, version("torchvision"), version("numpy")]
    digest = hashlib.sha256(json.dumps([*parts, versions], sort_keys=True).encode())
    for file in sorted(_loaded_files(root)):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class SnapshotStore:
    """The snapshot of one run, in a folder of its own; `lock` makes this process its only user.

    A save copies the state at once and writes the copy in a thread, while training continues.
    """

    def __init__(self, folder: Path, save_every_s: float) -> None:
        self._folder = folder
        self._file = folder / "state.pt"
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None
        self.copying_s = 0.0  # time that saves took from the training thread
        self._started_at = time.monotonic()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's lock; InputError names the one that is running.

        The last save is on the disk when the run ends, however it ends.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock, holder = FileLock(self._folder / "lock"), self._folder / "pid"
        try:
            held = lock.acquire(timeout=0)
        except Timeout as error:
            pid = holder.read_text() if holder.exists() else "unknown"
            raise InputError(
                f"process {pid} is training the same settings on the same data ({self._folder}); "
                "wait for it or end it"
            ) from error
        with held:
            holder.write_text(str(os.getpid()))
            try:
                yield
            finally:
                self._writer.shutdown()

    def load(self) -> dict[str, Any] | None:
        """Return the last snapshot, on the CPU, or None."""
        if not self._file.exists():
            return None
        state: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        return state

    def should_save(self) -> bool:
        """Whether the last save was `save_every_s` ago, and is on the disk."""
        if self._writing is not None and not self._writing.done():
            return False
        return time.monotonic() - self._saved_at >= self._save_every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the snapshot by a copy of a state, atomically and in the background.

        InputError if the one before could not be written.
        """
        started = time.monotonic()
        self.finish()
        self._writing = self._writer.submit(self._write, _copied(state))
        self._saved_at = time.monotonic()
        self.copying_s += self._saved_at - started

    @property
    def save_fraction(self) -> float:
        """The fraction of the time since the store was created that saves took from training."""
        return self.copying_s / (time.monotonic() - self._started_at)

    def finish(self) -> None:
        """Wait until the last save is on the disk; InputError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, RuntimeError) as error:  # torch hides an OSError behind one of its own
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else error
            raise InputError(
                f"the state of the run cannot be saved in {self._folder}: {reason}; "
                "free some space there, then start the run again"
            ) from error

    def delete(self) -> None:
        """Delete the snapshot of a run that has finished."""
        self.finish()
        shutil.rmtree(self._folder)

    def _write(self, state: Mapping[str, Any]) -> None:
        with atomic_write(self._file) as partial, partial.open("wb") as file:
            torch.save(state, file)


def _copied(state: Any) -> Any:
    """Copy the tensors of a state on their devices, which does not wait for a GPU."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [_copied(value) for value in state]
    return state


def _loaded_files(root: Path) -> Iterator[Path]:
    """Yield the files of this tree's modules that this process has imported."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] in ("minet", "stages", "__main__"):
            path = Path(file).resolve()
            if path.is_relative_to(root):
                yield path
