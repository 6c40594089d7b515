"""Freed memory is kept: fewer pages to map and zero for the next tensor."""

import subprocess
import sys
from pathlib import Path

CODE = """
import resource, sys
import torch
from minet.train.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("not possible here")
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):  # an aligned block needs a larger free one: the first ones have none
    torch.ones(20_000_000)
before = faults()
for _ in range(5):
    torch.ones(20_000_000)  # 80 MB: 19,531 pages
print(faults() - before)
"""


def _faults(root: Path, allocator: str) -> int:
    command = [sys.executable, "-c", CODE, allocator]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_tensor_reuses_the_pages_of_a_freed_one(root: Path) -> None:
    kept, system = _faults(root, "kept"), _faults(root, "system")
    assert system > 1_000, "glibc does not return large blocks, so there is nothing to gain"
    assert kept < system / 10
