"""Measure and test everything that needs a GPU; benchmarks/gpu.sh runs it, with a --scratch folder.

Writes OUT/gpu.json, which is valid after every result, and OUT/gpu.log. Parts run in order of
value; what no longer fits into the minutes is left out. `--device cpu --quick` is a rehearsal with
meaningless figures in under 3 minutes on two cores.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.runner import Runner
from benchmarks.gpu.sizes import FULL, size_for
from minet.core.files import read_json, write_json


def main() -> None:
    """Run the chosen parts; exit with 1 if one of them was not measured."""
    started = float(os.environ.get("GPU_STARTED", time.time()))
    args = _arguments()
    size = size_for(quick=args.quick)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # kills the part that runs
    args.out.mkdir(parents=True, exist_ok=True)
    _set_environment(args)
    origin = args.scratch / "origin.json"
    record: dict[str, Any] = {
        "settings": {
            "device": args.device,
            "quick": args.quick,
            "minutes": args.minutes,
            "size": size.record(),
            "origin": read_json(origin) if origin.exists() else {},
        }
    }
    try:
        Runner(record, args.out, args.scratch, partial(_command, args)).run(
            {part: size.limits_s[part] for part in size.limits_s if part in args.parts},
            started + 60 * args.minutes,
        )
    finally:
        record["settings"]["seconds"] = round(time.time() - started, 1)
        write_json(args.out / "gpu.json", record)
    print(f"written: {args.out / 'gpu.json'}, {record['settings']['seconds']:.0f} s")
    sys.exit(any(entry["outcome"] != "measured" for entry in record["parts"].values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.log")
    parser.add_argument("--minutes", type=float, default=9.0, help="the whole run ends within them")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--parts", nargs="+", choices=FULL.limits_s, default=[*FULL.limits_s])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; default: made here")
    parser.add_argument("--scratch", type=Path, required=True, help="of betons and caches")
    args = parser.parse_args()
    if args.device == "cpu" and not args.quick:
        parser.error("--device cpu needs --quick: the full sizes are a GPU's")
    if args.parts != ["environment"] and "images" not in args.parts:
        args.parts.append("images")  # the others read them
    return args


def _set_environment(args: argparse.Namespace) -> None:
    """Set what all parts share: a graph that one part compiles is ready for the next."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    os.environ |= {name: str(args.scratch / folder) for name, folder in caches.items()}
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if args.quick:  # oversubscribed cores would make it take minutes
        os.environ["OMP_NUM_THREADS"] = "1"


def _command(args: argparse.Namespace, part: str, results: Path, end: float) -> Sequence[str]:
    """Return the command of a part."""
    request = {
        "part": part,
        "folder": str(args.scratch),
        "photos": None if args.photos is None else str(args.photos),
        "quick": args.quick,
        "device": args.device,
        "results": str(results),
        "end": end,
    }
    path = args.scratch / f"{part}.json"
    write_json(path, request)
    return [sys.executable, "-m", "benchmarks.gpu.child", str(path)]


if __name__ == "__main__":
    main()
