"""Shared by the benchmarks: the machine's description, medians with range, tables in pages."""

import os
import platform
import re
import resource
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from minet.core.files import atomic_write


def machine() -> dict[str, Any]:
    """Return the device, the processor, the usable cores, and the versions that affect speed."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }


def peak_memory_gb() -> float:
    """Return the peak memory of this process: a GPU's tensors, else resident memory of the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def compiled_graphs() -> int:
    """Return the number of graphs that torch.compile has compiled in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median of the repeats with the minimum and the maximum: "12 (11-14)"."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, median, max))
    return f"{middle} ({low}-{high})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table: first column left-aligned, the others right-aligned."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def replace_between(path: Path, marker: str, text: str) -> None:
    """Replace what lies between `<!-- marker -->` and `<!-- /marker -->` in a file.

    ValueError unless the file has this pair of markers exactly once.
    """
    old = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    new, count = re.subn(
        pattern, lambda match: f"{match[1]}{text}\n{match[2]}", old, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{path} has the markers of {marker} {count} times, not once")
    with atomic_write(path) as partial:
        partial.write_text(new, encoding="utf-8")
