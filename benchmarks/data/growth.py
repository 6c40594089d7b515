"""Time and memory of writing a beton by the number of images.

Each size runs in its own process: this module, which therefore imports little.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.betons import index_rows, write

if TYPE_CHECKING:
    from benchmarks.peers.competitor import Job

_TIMEOUT_S = 1800.0


def growth(job: "Job", sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return seconds and peak megabytes of each size, all sizes once per round."""
    from benchmarks.processes import FailedError, run_module

    results: dict[str, Any] = {str(size): {"seconds": [], "peak_mb": []} for size in sizes}
    for index in range(rounds):
        for size in sizes:
            numbers = map(str, (job.originals, size, job.threads))
            try:
                output = run_module(["benchmarks.data.growth", job.folder, *numbers], _TIMEOUT_S)
            except FailedError as error:
                return results | {str(size): {"failed": str(error)}}
            seconds, peak_mb = json.loads(output)
            results[str(size)]["seconds"].append(seconds)
            results[str(size)]["peak_mb"].append(peak_mb)
            print(f"growth, round {index}, {size}: {seconds:.1f} s, {peak_mb:.0f} MB", flush=True)
    return results


def main() -> None:
    """Write one beton; print the seconds and this process's peak memory in megabytes."""
    folder = Path(sys.argv[1])
    originals, count, threads = map(int, sys.argv[2:])
    rows = index_rows(folder / "dense", originals, count)
    path = folder / "growth.beton"
    started = time.perf_counter()
    write(path, rows, folder / "dense", "raw", threads)
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, _peak_mb()]))
    path.unlink()


def _peak_mb() -> float:
    """Return the peak resident memory; getrusage would include the parent's at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
