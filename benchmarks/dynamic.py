"""Time dynamic convolutions against static ones: python -m benchmarks.dynamic --out FILE.

Training steps (forward, backward, Adam) of whole networks, and each algorithm of a mixed
convolution by shape, alternately; every repeat is recorded. On a GPU the algorithms run as in
training: channels-last and, but for Winograd's, in bfloat16. `--allocator system` leaves out
`keep_freed_memory`. About half an hour on two cores; docs/performance.md shows its results
(python -m benchmarks.pages).
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from benchmarks.common import machine
from minet.core.files import write_json
from minet.models.dwg_densenet121 import GeneratedConv
from minet.models.registry import build
from minet.nn import dynamic_conv
from minet.train.allocator import keep_freed_memory

# of ResNet-18 at 224 px: in_channels, out_channels, image_size, kernel_size, stride
SHAPES = (
    (64, 64, 56, 3, 1),
    (64, 128, 56, 3, 2),
    (128, 128, 28, 3, 1),
    (128, 256, 28, 3, 2),
    (256, 256, 14, 3, 1),
    (256, 512, 14, 3, 2),
    (512, 512, 7, 3, 1),
    (64, 128, 56, 1, 2),
    (128, 256, 28, 1, 2),
    (256, 512, 14, 1, 2),
)
WARM_UP = 4  # untimed calls, in which memory grows and kernels are selected
KERNELS = 4


def main() -> None:
    """Measure the requested parts; write them with the machine and every repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["steps", "forms", "stem", "densenet"])
    parser.add_argument("--allocator", choices=["kept", "system"], default="kept")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.allocator == "kept":
        keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = device.type == "cuda"
    parts: dict[str, Callable[[int], dict[str, list[float]]]] = {
        "steps": lambda count: _steps(_resnets(), count, args, device),
        "forms": lambda count: _algorithms(count, args, device),
        "stem": lambda count: _stem(count, args, device),
        "densenet": lambda count: _steps(_densenets(), count, args, device),
    }
    record: dict[str, Any] = {"machine": machine(), "image_size": args.image_size}
    record["allocator"] = args.allocator
    for part in args.parts:
        record[part] = {}
        # activations of 64 images in three DenseNets need more than 24 GB
        for count in args.batch if part != "densenet" else args.batch[:1]:
            record[part][str(count)] = parts[part](count)
            print(part, count, record[part][str(count)], flush=True)
            write_json(args.out, record)


def _resnets() -> dict[str, nn.Module]:
    names = ("resnet18", "dynamic_resnet18")
    models = {name: build(name, num_classes=50) for name in names}
    return models | {"dynamic_resnet18, grouped alone": models["dynamic_resnet18"]}


def _densenets() -> dict[str, nn.Module]:
    names = ("densenet121", "dwg_densenet121", "dwg_any")
    return {name: build(name, num_classes=50) for name in names}


def _steps(
    models: dict[str, nn.Module], count: int, args: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Return milliseconds of each training step, the models alternating."""
    images = torch.randn(count, 3, args.image_size, args.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(count, device=device) % 50
    steps = {}
    for name, model in models.items():
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        grouped = name.endswith("alone")
        steps[name] = _step(model.train(), optimizer, images, labels, grouped=grouped)
    times = _alternate(steps, args.repeats, device)
    gc.collect()
    return times


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    grouped: bool,
) -> Callable[[], None]:
    def step() -> None:
        with _grouped_only() if grouped else nullcontext():
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def _algorithms(
    count: int, args: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Return milliseconds, forward and backward, of each algorithm and a static convolution."""
    times = {}
    for in_channels, out_channels, image_size, side, stride in SHAPES:
        size = image_size * args.image_size // 224
        images = torch.randn(count, in_channels, size, size, device=device)
        if device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        images.requires_grad_()
        bank = torch.randn(KERNELS, out_channels, in_channels, side, side, device=device) * 0.02
        bank.requires_grad_()
        attention = torch.softmax(torch.randn(count, KERNELS, device=device), 1).requires_grad_()
        kernel = bank[0].detach().clone().requires_grad_()
        calls = {"static": _static(images, kernel, stride)}
        for algorithm in _supported(side, stride):
            calls[algorithm] = _mixed(algorithm, images, attention, bank, stride)
        if side > 1:
            calls["unfolded"] = _mixed_im2col(images, attention, bank, stride)
        chosen = dynamic_conv.fastest_algorithm(images, bank, stride)
        shape = f"{in_channels}-{out_channels}, {size} px, {side}x{side}, stride {stride}"
        for name, repeats in _alternate(calls, args.repeats, device).items():
            times[f"{shape}, chosen {chosen}: {name}"] = repeats
    return times


def _supported(side: int, stride: int) -> list[str]:
    if side == 1:
        return ["grouped", "products", "outputs"]
    return ["grouped", "outputs", *(["winograd"] if stride == 1 else [])]


def _static(images: Tensor, kernel: Tensor, stride: int) -> Callable[[], None]:
    def call() -> None:
        with _autocast(images):
            output = F.conv2d(images, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        _backward(output)

    return call


def _mixed(
    algorithm: str, images: Tensor, attention: Tensor, bank: Tensor, stride: int
) -> Callable[[], None]:
    function = dynamic_conv._ALGORITHMS[algorithm]  # noqa: SLF001

    def call() -> None:
        with nullcontext() if algorithm == "winograd" else _autocast(images):
            output = function(images, attention, bank, stride)
        _backward(output)

    return call


def _mixed_im2col(
    images: Tensor, attention: Tensor, bank: Tensor, stride: int
) -> Callable[[], None]:
    """Return a call of im2col, which no mixed convolution of ResNet-18 uses."""

    def call() -> None:
        with _autocast(images):
            kernels = dynamic_conv._mix_kernels(attention, bank)  # noqa: SLF001
            output = dynamic_conv._im2col(images, kernels, stride)  # noqa: SLF001
        _backward(output)

    return call


def _autocast(images: Tensor) -> AbstractContextManager[object]:
    """Compute in bfloat16 on a GPU, as training does."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda)


def _stem(count: int, args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Return milliseconds of DenseNet's first convolution, static, generated, image by image."""
    images = torch.randn(count, 3, args.image_size, args.image_size, device=device)
    static = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False, device=device)
    generated = GeneratedConv(3, 64, 128).to(device)

    def loop() -> None:
        _backward(torch.cat([generated(image[None]) for image in images]))

    calls = {
        "static": lambda: _backward(static(images)),
        "generated": lambda: _backward(generated(images)),
        "generated image by image": loop,
    }
    return _alternate(calls, args.repeats, device)


def _backward(output: Tensor) -> None:
    output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]


def _alternate(
    calls: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Return milliseconds of each call after the warm-up; a repeat makes each call once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(WARM_UP + repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= WARM_UP:
                times[name].append(round((time.perf_counter() - started) * 1e3, 3))
    return times


@contextmanager
def _grouped_only() -> Iterator[None]:
    """Use the algorithm of other implementations for all shapes: one group per image."""
    original = dynamic_conv.fastest_algorithm
    dynamic_conv.fastest_algorithm = lambda *_: "grouped"
    try:
        yield
    finally:
        dynamic_conv.fastest_algorithm = original


if __name__ == "__main__":
    main()
