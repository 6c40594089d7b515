"""Run one competitor: python -m benchmarks.peers FILE, where FILE says which and what to do.

Reads {"group", "name", "action": "make" or "measure", "job"} and writes what it found beside it,
as FILE.result: what libraries print goes where they print it.
"""

import os
import sys
from pathlib import Path

from benchmarks.peers.contest import Job, measure
from benchmarks.peers.table import GROUPS
from minet.core.files import read_json, write_json


def main() -> None:
    """Do what the file says."""
    path = Path(sys.argv[1])
    asked = read_json(path)
    competitor = GROUPS[asked["group"]][asked["name"]]
    job = Job(**asked["job"])
    os.chdir(job.folder)  # some libraries leave files where they stand
    if asked["action"] == "measure":
        result = measure(competitor, job)
    else:
        if competitor.make is not None:
            competitor.make(job)
        result = {}
    write_json(path.with_suffix(".result"), result)


if __name__ == "__main__":
    main()
