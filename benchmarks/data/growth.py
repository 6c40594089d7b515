"""Time and memory of writing a beton by the number of images: the one grows, the other does not.

Each size runs in a process of its own, this module without what the parent needs of it.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.betons import rows_of, write

if TYPE_CHECKING:
    from benchmarks.peers.contest import Job

_TIMEOUT_S = 1800.0


def growth(job: "Job", sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Seconds and peak megabytes of each size, the sizes by turns."""
    from benchmarks.data.turns import FailedError, run_module

    found: dict[str, Any] = {str(size): {"seconds": [], "peak_mb": []} for size in sizes}
    for turn in range(rounds):
        for size in sizes:
            asked = [job.folder, *map(str, (job.originals, size, job.threads))]
            try:
                output = run_module(["benchmarks.data.growth", *asked], _TIMEOUT_S)
            except FailedError as error:
                return found | {str(size): {"failed": str(error)}}
            seconds, peak_mb = json.loads(output)
            found[str(size)]["seconds"].append(seconds)
            found[str(size)]["peak_mb"].append(peak_mb)
            print(f"growth, round {turn}, {size}: {seconds:.1f} s, {peak_mb:.0f} MB", flush=True)
    return found


def main() -> None:
    """Write one beton; print the seconds and the peak of this process in megabytes."""
    folder = Path(sys.argv[1])
    originals, count, threads = map(int, sys.argv[2:])
    rows = rows_of(folder / "dense", originals, count)
    path = folder / "growth.beton"
    started = time.perf_counter()
    write(path, rows, folder / "dense", "raw", threads)
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, _peak_mb()]))
    path.unlink()


def _peak_mb() -> float:
    """Peak of the resident memory; getrusage would count what the parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
