"""Compare minet's data path with other tools: python -m benchmarks.data.

Writes benchmarks/results/data.json, with every repeat, and two figures beside it. `make bench-data`
installs the competitors; a missing one is recorded as failed. About 20 minutes on two cores;
`--quick` is a smoke test of a minute or two whose figures mean nothing.
"""

import argparse
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from benchmarks.data.figures import draw, draw_growth
from benchmarks.data.files import make_files
from benchmarks.data.growth import growth
from benchmarks.data.page import data_tables
from benchmarks.data.rounds import run_rounds
from benchmarks.data.start import start
from benchmarks.data.steps import steps
from benchmarks.peers.competitor import Job
from benchmarks.peers.table import GROUPS
from minet.core.cli import workers
from minet.core.files import write_json

PARTS = ("prepare", "prepare light", "steps", "read jpg", "read raw", "growth", "start")

_LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "pillow",
    "simplejpeg",
    "xxhash",
    "ffcv",
    "opencv-python-headless",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
    "spdl",
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    originals: int
    count: int  # images to read per epoch
    rounds: int  # each measures every competitor once
    epochs: int  # warm epochs per round
    growth: tuple[int, ...]
    starts: int
    timeout_s: float  # of one process


FULL = Size(2000, 8000, 3, 3, (1000, 2000, 5000, 10_000, 20_000), 5, 900.0)
QUICK = Size(100, 200, 1, 1, (200, 500, 1000), 1, 120.0)
BATCH_SIZE = 128
RECORD = Path("benchmarks/results/data.json")


def main() -> None:
    """Measure the selected parts; the record is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute or two")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="the record; figures are written beside it")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    out = args.out or (Path(tempfile.mkdtemp(), "data.json") if args.quick else RECORD)
    record: dict[str, Any] = {
        "machine": machine(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "settings": _settings(size, quick=args.quick),
    }
    with tempfile.TemporaryDirectory(prefix="minet-bench-") as folder:
        job = Job(
            folder=folder,
            photos="dense",
            originals=size.originals,
            count=size.count,
            batch_size=BATCH_SIZE,
            threads=workers(),
            epochs=size.epochs,
            check=True,
        )
        record["photos"] = make_files(job)
        for part in args.parts:
            record[part] = _measure(part, job, size)
            write_json(out, record)
    draw(record, out.with_suffix(".png"))
    if "growth" in record:
        draw_growth(record["growth"], out.with_name(f"{out.stem}-growth.png"))
    for name, text in data_tables(record).items():
        print(f"\n{name}\n\n{text}")
    print(f"\nwritten: {out}")


def _measure(part: str, job: Job, size: Size) -> dict[str, Any]:
    if part == "growth":
        return growth(job, size.growth, size.rounds)
    if part == "start":
        return start(job.path("dense"), size.starts)
    if part == "steps":
        return {kind: steps(job.path(kind), size.rounds) for kind in ("dense", "light")}
    if part == "prepare light":
        names = ("limit: decoding alone", "minet raw", "minet jpg")
        light = Job(**{**job.record(), "photos": "light", "check": False})
        return run_rounds("prepare", names, light, size.rounds, size.timeout_s)
    return run_rounds(part, tuple(GROUPS[part]), job, size.rounds, size.timeout_s)


def _settings(size: Size, *, quick: bool) -> dict[str, Any]:
    competitors = {
        group: {name: dict(competitor.settings) for name, competitor in members.items()}
        for group, members in GROUPS.items()
    }
    return {
        "quick": quick,
        "originals": size.originals,
        "images_read": size.count,
        "batch_size": BATCH_SIZE,
        "cores": workers(),
        "rounds": size.rounds,
        "warm_epochs_a_round": size.epochs,
        "competitors": competitors,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
