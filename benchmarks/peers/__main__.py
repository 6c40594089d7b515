"""Run one competitor: python -m benchmarks.peers FILE.

FILE holds {"group", "name", "action": "convert" or "measure", "job"}; the result is written beside
it as FILE.result, because libraries print to standard output.
"""

import os
import sys
from pathlib import Path

from benchmarks.peers.competitor import Job, measure
from benchmarks.peers.table import GROUPS
from minet.core.files import read_json, write_json


def main() -> None:
    """Run the requested action."""
    path = Path(sys.argv[1])
    request = read_json(path)
    competitor = GROUPS[request["group"]][request["name"]]
    job = Job(**request["job"])
    os.chdir(job.folder)  # some libraries leave files in the working directory
    if request["action"] == "measure":
        result = measure(competitor, job)
    else:
        if competitor.convert is not None:
            competitor.convert(job)
        result = {}
    write_json(path.with_suffix(".result"), result)


if __name__ == "__main__":
    main()
