"""Measure one thing in this process: python -m benchmarks.train.child FILE.

Reads {"part", ...} and writes what it found beside it, as FILE.result: what libraries print goes
where they print it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.train.competitors import measure as one_loop
from benchmarks.train.mfu import measure as operations
from benchmarks.train.stall import measure as waiting
from benchmarks.train.trace import measure as kinds
from minet.core.files import read_json, write_json

_PARTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "loops": one_loop,
    "stall": waiting,
    "mfu": operations,
    "trace": kinds,
}


def main() -> None:
    """Do what the file says."""
    path = Path(sys.argv[1])
    asked = read_json(path)
    os.chdir(path.parent)  # some libraries leave files where they stand
    write_json(path.with_suffix(".result"), _PARTS[asked["part"]](asked))


if __name__ == "__main__":
    main()
