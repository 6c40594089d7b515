"""Model FLOPs utilization (MFU) of minet's training step."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from benchmarks.train import ours
from benchmarks.train.job import CLASSES, Clock, Job, build_model, default_device, now
from minet.cost.counter import count_costs

# dense bfloat16 with float32 accumulation, FLOP/s, by a part of the GPU's name; the first match
# counts. NVIDIA's data sheets print the doubled figures with sparsity.
PEAKS: dict[str, tuple[float, str]] = {
    "H100 PCIe": (756e12, "NVIDIA H100 data sheet, PCIe: 1,513 TFLOPS with sparsity"),
    "H100": (989e12, "NVIDIA H100 data sheet, SXM: 1,979 TFLOPS with sparsity"),
    "H200": (989e12, "NVIDIA H200 data sheet: 1,979 TFLOPS with sparsity"),
    "A100": (312e12, "NVIDIA A100 data sheet: 624 TFLOPS with sparsity"),
}
_GPU_CALLS = 50  # of a product or convolution, per repeat
_PASSES = 3  # forward; backward for inputs and for weights
_CHANNELS, _IMAGE_PX, _KERNEL_PX = 256, 28, 3  # of the convolution that measures the peak


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return images per second, operations per image and the device's peak."""
    job, device = Job(**request["job"]), default_device()
    clock = Clock(job, device)
    first = measured_peaks(request["product_side"], device)
    ours.train(job, device, clock)
    second = measured_peaks(request["product_side"], device)
    measured = {name: [*rates, *second[name]] for name, rates in first.items()}
    macs = count_costs(build_model(job), channels=3, image_size=job.image_size)["macs"]
    peak, source = _peak(measured, device)
    return {
        "batch_size": job.batch_size,
        "classes": CLASSES,
        "images_per_s": [job.batch_size * job.steps / seconds for seconds in clock.seconds()],
        "forward_macs": macs,
        "step_flops": _PASSES * 2 * macs,
        "peak_flops_per_s": peak,
        "peak_source": source,
        "product_side": request["product_side"],
        "measured_flops_per_s": measured,
    }


def _peak(measured: Mapping[str, list[float]], device: torch.device) -> tuple[float, str]:
    """Return the peak in FLOP/s and its source: the table, or else the measurement."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    fastest = max(max(rates) for rates in measured.values())
    default = (fastest, "the fastest product or convolution of this run")
    return next((peak for part, peak in PEAKS.items() if part in name), default)


def measured_peaks(side: int, device: torch.device) -> dict[str, list[float]]:
    """Return FLOP/s of a large matrix product and of a large convolution.

    On a CPU two libraries compute them, and either may be much faster: MKL uses AVX-512 on Intel's
    processors only, oneDNN on all.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    count = max(1, side // 128)
    shape = (count, _CHANNELS, _IMAGE_PX, _IMAGE_PX)
    images = torch.randn(shape, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(_CHANNELS, _CHANNELS, _KERNEL_PX, _KERNEL_PX, device=device, dtype=dtype)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    macs = count * (_CHANNELS * _IMAGE_PX * _KERNEL_PX) ** 2
    return {
        "product": _rates(lambda: torch.mm(a, b), 2 * side**3, device),
        "convolution": _rates(lambda: F.conv2d(images, kernels, padding=1), 2 * macs, device),
    }


def _rates(
    call: Callable[[], object], operations: int, device: torch.device, repeats: int = 3
) -> list[float]:
    """Return operations per second of each repeat, after one that warms up.

    A repeat is one call; on a GPU, whose clock needs some time to rise, as many as take a while.
    """
    calls = _GPU_CALLS if device.type == "cuda" else 1
    marks = []
    for _ in range(1 + repeats):
        for _ in range(calls):
            call()
        marks.append(now(device))
    return [calls * operations / (end - start) for start, end in pairwise(marks)]
