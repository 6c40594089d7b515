"""Measure minet's training step and the loops beside it: python -m benchmarks.train.

Writes benchmarks/results/train-cpu.json, or train-<gpu>.json on a GPU, with every repeat; the part
`epochs`, which trains every model and runs only when it is asked for, train-epochs-cpu.json.
`make bench-train` brings the peers; one that is missing is recorded as failed. Less than 12 minutes
on two cores, and as many for `epochs`; `--quick` is a trial of a minute whose figures mean nothing.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from benchmarks.train.competitors import COMPETITORS
from benchmarks.train.page import tables
from benchmarks.train.parts import (
    measure_epochs,
    measure_loops,
    measure_mfu,
    measure_stall,
    measure_trace,
)
from benchmarks.train.sizes import Size, size_for
from minet.core.files import read_json, write_json
from minet.models.registry import MODELS

PARTS: dict[str, Callable[[Path, Size], dict[str, Any]]] = {
    "loops": measure_loops,
    "stall": measure_stall,
    "mfu": measure_mfu,
    "trace": measure_trace,
    "epochs": measure_epochs,
}
_USUAL = [part for part in PARTS if part != "epochs"]
_LIBRARIES = ("torch", "torchvision", "timm", "pytorch-lightning")
_RESULTS = Path("benchmarks/results")


def main() -> None:
    """Measure what is asked for and print the tables; `epochs` has a record of its own."""
    args = _arguments()
    if args.quick:  # threads that wait for a core which others use would take minutes
        os.environ["OMP_NUM_THREADS"] = "1"
    gpu = torch.cuda.is_available()
    size = size_for(quick=args.quick, gpu=gpu).only(args.models, args.batch)
    folder = args.out or (Path(tempfile.mkdtemp()) if args.quick else _RESULTS)
    slug = re.sub(r"\W+", "-", torch.cuda.get_device_name().lower()) if gpu else "cpu"
    for stem, parts in (
        (f"train-{slug}", [part for part in args.parts if part != "epochs"]),
        (f"train-epochs-{slug}", [part for part in args.parts if part == "epochs"]),
    ):
        if not parts:
            continue
        path = folder / f"{stem}.json"
        record = _measured(path, parts, size, quick=args.quick, extend=args.extend)
        for name, text in tables(stem, record).items():
            print(f"\n{name}\n\n{text}")
        print(f"\nwritten: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial of a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=_USUAL)
    parser.add_argument("--models", nargs="+", choices=MODELS, help="by default all of a part")
    parser.add_argument("--batch", nargs="+", type=int, help="of the loops; by default all sizes")
    parser.add_argument("--extend", action="store_true", help="keep what the record has besides")
    parser.add_argument("--out", type=Path, help="the folder of the records")
    return parser.parse_args()


def _measured(
    path: Path, parts: Sequence[str], size: Size, *, quick: bool, extend: bool
) -> dict[str, Any]:
    """Measure the parts of a record, which is whole on the disk after each."""
    installed = {one.name.lower(): one.version for one in distributions()}
    record: dict[str, Any] = {
        "machine": machine(),
        "versions": {name: installed.get(name) for name in _LIBRARIES},
        "settings": {"quick": quick, "size": size.record()},
    }
    if "epochs" not in parts:
        record["settings"]["competitors"] = _contestants()
    before = read_json(path) if extend and path.exists() else {}
    if before and before["machine"] != record["machine"]:
        raise ValueError(f"{path} is of another machine: {before['machine']}")
    record |= {part: before[part] for part in PARTS if part in before}
    with tempfile.TemporaryDirectory(prefix="minet-bench-") as scratch:
        for part in parts:
            found = PARTS[part](Path(scratch), size)
            record[part] = (record.get(part) or {}) | found
            write_json(path, record)
    return record


def _contestants() -> dict[str, dict[str, str]]:
    return {name: dict(competitor.settings) for name, competitor in COMPETITORS.items()}


if __name__ == "__main__":
    main()
