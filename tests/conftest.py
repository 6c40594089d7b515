"""Fixtures of several rooms; settings of the processes that run tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# before torch is imported: waiting threads sleep, since other processes need the cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
import yaml

from tests.helpers.fork_server import ForkServer, fork_server
from tests.helpers.reaper import reaping
from tests.helpers.sources import ListSource
from tests.helpers.tree import ROOT

# processes started in the background of a shell ignore Ctrl-C, and so would those of the tests
signal.signal(signal.SIGINT, signal.default_int_handler)

# files that take longest, which parallel runs start with
LONGEST = ("tests/test_pipeline.py", "tests/train/distributed/", "tests/zoo/", "tests/train/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU without one; in a worker of pytest-xdist, start with the longest."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid))


def _place(nodeid: str) -> int:
    places = (place for place, start in enumerate(LONGEST) if nodeid.startswith(start))
    return next(places, len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Kill what the tests have started when this process ends, however it ends."""
    with reaping():
        yield


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove environment variables of a user or of an outer DVC run."""
    for name in list(os.environ):
        if name.startswith(("MINET_", "DVC_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the tree under test."""
    return ROOT


@pytest.fixture(scope="session")
def forked() -> Iterator[ForkServer]:
    """Return a server that forks training runs."""
    with fork_server() as server:
        yield server


@pytest.fixture
def raw_params() -> dict[str, Any]:
    """Return the committed params.yaml as plain data."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return raw


@pytest.fixture
def blobs() -> ListSource:
    """Return 40 images of 16 px in two classes, dark and bright."""
    rng = np.random.default_rng(0)
    labels = torch.arange(40) % 2
    noise = torch.from_numpy(rng.integers(0, 60, (40, 3, 16, 16), dtype=np.uint8))
    return ListSource(noise + (labels * 120)[:, None, None, None].to(torch.uint8), labels, 8)
