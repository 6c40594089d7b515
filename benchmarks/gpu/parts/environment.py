"""The machine: card, driver, clocks, versions; bandwidths and the ceiling of matrix products."""

import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.common import machine
from benchmarks.gpu.work import Work
from benchmarks.train.job import now
from benchmarks.train.mfu import measured_peaks

_PACKAGES = ("torch", "torchvision", "triton", "numpy", "numba", "timm", "pytorch-lightning",
             "pydantic", "fvcore", "simplejpeg")  # fmt: skip
_QUERY = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm",
          "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu", "pstate")  # fmt: skip
_REPEATS = 5


def measure(work: Work) -> None:
    """Report the card as it is found; no setting of it is changed."""
    work.report("machine", value=machine())
    work.report("versions", value=_versions())
    if work.gpu:
        properties = torch.cuda.get_device_properties(0)
        card = {
            "name": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": properties.total_memory / 1e9,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "nccl": str(torch.cuda.nccl.version()),  # type: ignore[no-untyped-call]
            "before": _nvidia_smi(),
        }
        work.report("card", value=card)
    work.report("flops_per_s", value=measured_peaks(work.size.product_side, work.device))
    work.report("flops_of", value=f"bfloat16, side {work.size.product_side}" if work.gpu else "CPU")
    if work.gpu:
        work.report("card", "after products", value=_nvidia_smi())
    for name, copy in _copies(work).items():
        work.attempt("gb_per_s", name, measure=copy)


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _nvidia_smi() -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        return {"failed": str(error)}
    return dict(zip(_QUERY, done.stdout.splitlines()[0].split(", "), strict=False))


def _copies(work: Work) -> dict[str, Callable[[], list[float]]]:
    """Return measurements of copies, in 10^9 bytes per second: of each repeat."""
    count, part = work.size.copy_bytes, work.size.copy_bytes // 4
    source = torch.randint(256, (count,), dtype=torch.uint8, device=work.device)
    target = torch.empty_like(source)
    copies = {"on the device, read and written": lambda: _rates(source, target, 2 * count, work)}
    if work.gpu:
        host = source[:part].cpu()
        pinned = host.pin_memory()
        copies |= {
            "from page-locked memory": lambda: _rates(pinned, target[:part], part, work),
            "from pageable memory": lambda: _rates(host, target[:part], part, work),
        }
    return copies


def _rates(source: Tensor, target: Tensor, count: int, work: Work) -> list[float]:
    marks = []
    for _ in range(1 + _REPEATS):
        target.copy_(source, non_blocking=True)
        marks.append(now(work.device))
    return [count / (b - a) / 1e9 for a, b in pairwise(marks)]
