"""The state from which a run goes on that was killed or asked to stop, and what it belongs to."""

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
    """Digest of everything that a run's bytes depend on: parts as JSON, torch, the code loaded.

    Call it when all modules that the run uses are imported. The registry of models is not among
    them: the parts name the builder, so a new model invalidates nobody's unfinished run.
    """
    root = Path(__file__).resolve().parents[2]
    versions = [torch.__version__, version("torchvision"), version("numpy")]
    digest = hashlib.sha256(json.dumps([*parts, versions], sort_keys=True).encode())
    for file in sorted(_loaded_files(root)):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class SnapshotStore:
    """Where one run saves its state; belongs to one fingerprint and one process at a time.

    A save is a copy, made at once, that a thread writes: training goes on meanwhile.
    """

    def __init__(self, folder: Path, save_every_s: float) -> None:
        """Name the folder; `lock` takes it."""
        self._folder = folder
        self._file = folder / "state.pt"
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None
        self.copying_s = 0.0  # time that the training thread has spent on saves
        self._began = time.monotonic()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while the run lasts; InputError names the one that is in.

        What was saved is on the disk when the run ends, however it ends.
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
        """Give the last state saved, on the CPU, or None."""
        if not self._file.exists():
            return None
        state: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        return state

    def should_save(self) -> bool:
        """Whether the last save is `save_every_s` ago, and on the disk."""
        if self._writing is not None and not self._writing.done():
            return False
        return time.monotonic() - self._saved_at >= self._save_every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a copy of a state in the place of the last one, whole or not at all, soon.

        InputError if the one before could not be written.
        """
        began = time.monotonic()
        self.finish()
        self._writing = self._writer.submit(self._write, _copied(state))
        self._saved_at = time.monotonic()
        self.copying_s += self._saved_at - began

    @property
    def share(self) -> float:
        """Give the share of this process's time since its start that saves took of training."""
        return self.copying_s / (time.monotonic() - self._began)

    def finish(self) -> None:
        """Wait until what was saved is on the disk; InputError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, RuntimeError) as error:  # torch hides an OSError behind one of its own
            cause = error if isinstance(error, OSError) else error.__context__
            why = cause.strerror if isinstance(cause, OSError) else error
            what = f"the state of the run cannot be saved in {self._folder}: {why}"
            raise InputError(f"{what}; make room there, then start the run again") from error

    def delete(self) -> None:
        """Forget the run: it has ended well."""
        self.finish()
        shutil.rmtree(self._folder)

    def _write(self, state: Mapping[str, Any]) -> None:
        with atomic_write(self._file) as partial, partial.open("wb") as file:
            torch.save(state, file)


def _copied(state: Any) -> Any:
    """Copy the tensors of a state where they lie: no wait for a GPU."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [_copied(value) for value in state]
    return state


def _loaded_files(root: Path) -> Iterator[Path]:
    """Files of this tree's modules that this process has imported."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        ours = name.partition(".")[0] in ("minet", "stages", "__main__")
        if file and ours:
            path = Path(file).resolve()
            if path.is_relative_to(root):
                yield path
