"""How much of the device's arithmetic minet's step uses."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from benchmarks.train import ours
from benchmarks.train.job import CLASSES, Clock, Job, model_of, now, own_device
from minet.cost.counter import count_costs

# dense bfloat16 with float32 sums, multiplies and adds a second, by a part of the GPU's name; the
# first that fits counts. NVIDIA's data sheets print twice as much, which is with sparsity.
PEAKS: dict[str, tuple[float, str]] = {
    "H100 PCIe": (756e12, "NVIDIA H100 data sheet, PCIe: 1,513 TFLOPS with sparsity"),
    "H100": (989e12, "NVIDIA H100 data sheet, SXM: 1,979 TFLOPS with sparsity"),
    "H200": (989e12, "NVIDIA H200 data sheet: 1,979 TFLOPS with sparsity"),
    "A100": (312e12, "NVIDIA A100 data sheet: 624 TFLOPS with sparsity"),
}
_PASSES = 3  # forward; backward to inputs and to weights


_PLANES, _IMAGE_PX, _KERNEL_PX = 256, 28, 3  # of the convolution that stands for the fastest


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the peak's share follows from: images a second, operations, the peak."""
    job, device = Job(**asked["job"]), own_device()
    clock = Clock(job, device)
    before = _measured_peaks(asked["product_side"], device)
    ours.train(job, device, clock)
    after = _measured_peaks(asked["product_side"], device)
    measured = {name: [*rates, *after[name]] for name, rates in before.items()}
    macs = count_costs(model_of(job), channels=3, image_size=job.image_size)["macs"]
    peak, source = _peak(measured, device)
    return {
        "batch_size": job.batch_size,
        "classes": CLASSES,
        "images_per_s": [job.batch_size * job.steps / seconds for seconds in clock.seconds()],
        "forward_macs": macs,
        "step_flops": _PASSES * 2 * macs,
        "peak_flops_per_s": peak,
        "peak_source": source,
        "product_side": asked["product_side"],
        "measured_flops_per_s": measured,
    }


def _peak(measured: Mapping[str, list[float]], device: torch.device) -> tuple[float, str]:
    """Give the peak, of the table if the device is in it, and where it is from."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    fastest = max(max(rates) for rates in measured.values())
    own = (fastest, "the fastest product or convolution of this run")
    return next((peak for part, peak in PEAKS.items() if part in name), own)


def _measured_peaks(side: int, device: torch.device) -> dict[str, list[float]]:
    """Operations a second of a product of matrices and of a convolution, both large.

    On a CPU two libraries do them, and either may be the faster by far: MKL has no AVX-512 for
    processors of others than Intel, oneDNN has.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    count = max(1, side // 128)
    shape = (count, _PLANES, _IMAGE_PX, _IMAGE_PX)
    images = torch.randn(shape, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(_PLANES, _PLANES, _KERNEL_PX, _KERNEL_PX, device=device, dtype=dtype)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    macs = count * (_PLANES * _IMAGE_PX * _KERNEL_PX) ** 2
    return {
        "product": _rates(lambda: torch.mm(one, other), 2 * side**3, device),
        "convolution": _rates(lambda: F.conv2d(images, kernels, padding=1), 2 * macs, device),
    }


def _rates(
    call: Callable[[], object], operations: int, device: torch.device, repeats: int = 3
) -> list[float]:
    """Operations a second of a call, after a first one."""
    marks = []
    for _ in range(1 + repeats):
        call()
        marks.append(now(device))
    return [operations / (after - before) for before, after in pairwise(marks)]
