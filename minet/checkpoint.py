"""Weights that say what they are, and the state from which a killed run goes on."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minet.building import build_by_name
from minet.errors import InputError
from minet.results import read_json, whole_file, write_json


def save_model(weights: Path, card: Path, state: Mapping[str, Tensor], record: Any) -> None:
    """Write weights (safetensors) and beside them the card: all that is needed to use them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_file(weights) as partial:
        save_file(tensors, partial)
    write_json(card, record)


def load_model(weights: Path, card: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that a card describes and load its weights; InputError if they differ."""
    record = read_json(card)
    model = build_by_name(
        record["builder"], num_classes=len(record["classes"]), arguments=record["arguments"]
    )
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{weights}: not the weights that {card} describes: {error}") from error
    return model, record


def fingerprint(*parts: object) -> str:
    """Digest of everything that a run's bytes depend on: parts as JSON, torch, the code loaded.

    Call it when all modules that the run uses are imported. The table of models is left out: the
    parts name the builder, and a new line in the table must not cost anyone's unfinished run.
    """
    root = Path(__file__).resolve().parent.parent
    versions = [torch.__version__, version("torchvision")]
    digest = hashlib.sha256(json.dumps([*parts, versions], sort_keys=True).encode())
    for file in sorted(_loaded_files(root)):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class ResumeStore:
    """Where one run saves its state; belongs to one fingerprint and one process at a time."""

    def __init__(self, folder: Path, save_every_s: float) -> None:
        """Name the folder; `hold` takes it."""
        self._folder = folder
        self._file = folder / "state.pt"
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes out while the run lasts; InputError names the one that is in."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock, holder = FileLock(self._folder / "lock"), self._folder / "pid"
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            pid = holder.read_text() if holder.exists() else "unknown"
            raise InputError(
                f"process {pid} is training the same settings on the same data ({self._folder}); "
                "wait for it or end it"
            ) from error
        with lock:
            holder.write_text(str(os.getpid()))
            yield

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Give the last state saved, or None."""
        if not self._file.exists():
            return None
        state: dict[str, Any] = torch.load(self._file, map_location=device, weights_only=True)
        return state

    def due(self) -> bool:
        """Whether the last save is `save_every_s` ago."""
        return time.monotonic() - self._saved_at >= self._save_every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a state in the place of the last one, whole or not at all."""
        with whole_file(self._file) as partial:
            torch.save(dict(state), partial)
        self._saved_at = time.monotonic()

    def delete(self) -> None:
        """Forget the run: it has ended well."""
        shutil.rmtree(self._folder)


def _loaded_files(root: Path) -> Iterator[Path]:
    """Files of this tree's modules that this process has imported."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        ours = name.partition(".")[0] in ("minet", "stages", "__main__")
        if file and ours and name != "minet.models":
            path = Path(file).resolve()
            if path.is_relative_to(root):
                yield path
