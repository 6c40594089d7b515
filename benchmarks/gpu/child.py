"""Measure one part in this process: python -m benchmarks.gpu.child FILE, a JSON request."""

import importlib
import os
import sys
from pathlib import Path

import torch

from benchmarks.gpu.sizes import size_for
from benchmarks.gpu.work import Work
from minet.core.files import read_json


def main() -> None:
    """Measure the part that the request names."""
    request = read_json(Path(sys.argv[1]))
    device = torch.device(request["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch.cuda finds no GPU; `--device cpu --quick` rehearses without one")
    folder = Path(request["folder"])
    os.environ["DVC_ROOT"] = str(folder)  # snapshots go there, not into this tree
    work = Work(
        folder=folder,
        photos=None if request["photos"] is None else Path(request["photos"]),
        size=size_for(quick=request["quick"]),
        device=device,
        results=Path(request["results"]),
        end=request["end"],
    )
    importlib.import_module(f"benchmarks.gpu.parts.{request['part']}").measure(work)
    work.check_claims()


if __name__ == "__main__":
    main()
