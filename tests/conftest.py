"""What several tests need: valid settings to vary, and tiny sources of batches."""

import os
import signal
from pathlib import Path
from typing import Any

# before torch: threads that wait for others sleep, since other tests' processes need the cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
import yaml

from tests.helpers.sources import ListSource
from tests.helpers.tree import ROOT

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
