"""Measure one part in this process: python -m benchmarks.train.child FILE.

FILE holds {"part", ...}; the record is written beside it as FILE.result, because libraries print to
standard output.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.train import competitors, mfu, stall, trace
from minet.core.files import read_json, write_json

_PARTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "loops": competitors.measure,
    "stall": stall.measure,
    "mfu": mfu.measure,
    "trace": trace.measure,
}


def main() -> None:
    """Measure the requested part."""
    path = Path(sys.argv[1])
    request = read_json(path)
    os.chdir(path.parent)  # some libraries leave files in the working directory
    write_json(path.with_suffix(".result"), _PARTS[request["part"]](request))


if __name__ == "__main__":
    main()
