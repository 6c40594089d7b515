"""What benchmarks share: the machine they ran on, medians with spread, tables in documents."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from minet.core.files import atomic_write


def machine() -> dict[str, Any]:
    """Name the device, the processor, its cores in use, and the versions that decide speed."""
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


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median of the repeats with the smallest and the largest: "12 (11-14)"."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, median, max))
    return f"{middle} ({low}-{high})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown with the first column left, the others right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def put_between(path: Path, marker: str, text: str) -> None:
    """Put text between `<!-- marker -->` and `<!-- /marker -->` of a document."""
    before = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    after, found = re.subn(
        pattern, lambda match: f"{match[1]}{text}\n{match[2]}", before, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"{path} has {found} places for {marker}, not one")
    with atomic_write(path) as partial:
        partial.write_text(after, encoding="utf-8")
