"""Compare minet's training step with other training loops: python -m benchmarks.train.

Writes benchmarks/results/train-cpu.json, or train-<gpu>.json on a GPU, with every repeat. The part
`epochs`, which trains every model and is off by default, writes train-epochs-cpu.json. `make
bench-train` installs the competitors; a missing one is recorded as failed. Less than 12 minutes on
two cores, and as many for `epochs`; `--quick` is a smoke test of a minute with meaningless figures.
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
_DEFAULT_PARTS = [part for part in PARTS if part != "epochs"]
_LIBRARIES = ("torch", "torchvision", "timm", "pytorch-lightning")
_RESULTS = Path("benchmarks/results")


def main() -> None:
    """Measure the selected parts and print the tables; `epochs` has its own record."""
    args = _arguments()
    if args.quick:  # oversubscribed cores would make it take minutes
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
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=_DEFAULT_PARTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, help="default: all models of a part")
    parser.add_argument(
        "--batch", nargs="+", type=int, help="batch sizes of the loops; default: all"
    )
    parser.add_argument(
        "--extend", action="store_true", help="keep the record's other measurements"
    )
    parser.add_argument("--out", type=Path, help="the folder of the records")
    return parser.parse_args()


def _measured(
    path: Path, parts: Sequence[str], size: Size, *, quick: bool, extend: bool
) -> dict[str, Any]:
    """Measure the parts of a record, which is written after each."""
    installed = {package.name.lower(): package.version for package in distributions()}
    record: dict[str, Any] = {
        "machine": machine(),
        "versions": {name: installed.get(name) for name in _LIBRARIES},
        "settings": {"quick": quick, "size": size.record()},
    }
    if "epochs" not in parts:
        record["settings"]["competitors"] = {
            name: dict(competitor.settings) for name, competitor in COMPETITORS.items()
        }
    earlier = read_json(path) if extend and path.exists() else {}
    if earlier and earlier["machine"] != record["machine"]:
        raise ValueError(f"{path} is of another machine: {earlier['machine']}")
    record |= {part: earlier[part] for part in PARTS if part in earlier}
    with tempfile.TemporaryDirectory(prefix="minet-bench-") as scratch:
        for part in parts:
            results = PARTS[part](Path(scratch), size)
            record[part] = (record.get(part) or {}) | results
            write_json(path, record)
    return record


if __name__ == "__main__":
    main()
