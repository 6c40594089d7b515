"""What several tests need: valid settings to vary, and tiny sources of batches."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from minet.batch import Batch, IndexArray, split_order
from minet.data.loader import BetonLoader, open_loaders
from minet.settings_data import Cache

ROOT = Path(__file__).resolve().parent.parent

# a shell has what it starts in the background ignore Ctrl-C, and what that starts, which tests stop
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """Give the root of the tree under test."""
    return ROOT


@pytest.fixture
def raw_params() -> dict[str, Any]:
    """Give params.yaml as it is committed, as plain data."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return raw


def open_one(
    path: Path,
    *,
    batch_size: int,
    workers: int,
    cache: Cache,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - frozen
) -> BetonLoader:
    """Open one split as training opens two."""
    (loader,) = open_loaders([(path, batch_size)], workers=workers, cache=cache, device=device)
    return loader


class ListSource:
    """A split in memory: `images` (N, C, H, W) uint8 with their labels."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.count = len(images)
        self.served = 0

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        for indices in split_order(order, self.batch_size):
            self.served += 1
            yield Batch(self.images[indices], self.labels[indices], indices)


@pytest.fixture
def blobs() -> ListSource:
    """Give 40 images of 16 px whose class (of two) is how bright they are."""
    rng = np.random.default_rng(0)
    labels = torch.arange(40) % 2
    noise = torch.from_numpy(rng.integers(0, 60, (40, 3, 16, 16), dtype=np.uint8))
    return ListSource(noise + (labels * 120)[:, None, None, None].to(torch.uint8), labels, 8)


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a user or an outer DVC run has set from reaching the tests."""
    for name in list(os.environ):
        if name.startswith(("MINET_", "DVC_")):
            monkeypatch.delenv(name)
