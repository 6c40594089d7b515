"""Costs that the reports print, figure by figure, and the measure that reproduces each."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.models.registry import build


@dataclass(frozen=True)
class Published:
    """A cell of a report's table: `printed` is the value of `figure` divided by `unit`.

    `figure` is a key of `benchmarks.profilers`, or `parameters` of `minet.cost.counter`.
    """

    report: str
    model: str
    column: str
    printed: str
    figure: str
    unit: float

    @property
    def step(self) -> float:
        """One unit of the last printed digit; the reports round or truncate."""
        return float(10 ** -len(self.printed.partition(".")[2]))


_COLUMNS = (  # of report 001
    ("Params", "torchinfo_params_mb", 1),
    ("Multi-Adds", "torchinfo_mult_adds", 1e9),
    ("Forward", "torchinfo_forward_backward_mb", 1),
    ("FLOPs", "torchprofile_gimacs", 1),
)
_REPORT_001 = {
    "resnet34_flatten": ("90.16", "3.66", "59.81", "3.41"),
    "rrdb": ("0.17", "0.20", "20.07", "0.19"),
    "rrdb_rnn": ("0.30", "0.42", "20.07", "0.39"),
    "dwg_densenet121": ("32.84", "14.13", "174.19", "2.65"),
}
PUBLISHED = [
    Published("000", "resnet18", "params (M)", "11.2", "parameters", 1e6),
    Published("000", "resnet18", "MACs (M)", "1820", "ptflops_macs", 1e6),
    Published("000", "dynamic_resnet18", "params (M)", "44.9", "parameters", 1e6),
    Published("000", "dynamic_resnet18", "MACs (M)", "178.3", "ptflops_macs", 1e6),
    *(
        Published("001", model, column, printed, figure, unit)
        for model, row in _REPORT_001.items()
        for (column, figure, unit), printed in zip(_COLUMNS, row, strict=True)
    ),
]
MEANING = {
    "parameters": "millions of parameters, truncated",
    "torchinfo_params_mb": "megabytes of parameters, 4 bytes each, printed as millions",
    "torchinfo_mult_adds": "multiply-adds of the layers that are modules, in 10^9",
    "torchinfo_forward_backward_mb": "megabytes of the modules' outputs, doubled, printed as M",
    "torchprofile_gimacs": "multiply-adds of all operations in 2^30, printed as G of FLOPs",
    "ptflops_macs": "multiply-adds seen by hooks on modules and functions, incl. norms and pools",
}
ACTUAL = {  # the key of cost.json with the quantity that the column names, and its unit
    "parameters": ("parameters", 1e6, "M parameters"),
    "torchinfo_params_mb": ("parameters", 1e6, "M parameters"),
    "torchinfo_mult_adds": ("macs", 1e9, "G multiply-adds"),
    "torchinfo_forward_backward_mb": ("activation_mb", 1, "MB saved for backward"),
    "torchprofile_gimacs": ("macs", 1e9, "G multiply-adds"),
    "ptflops_macs": ("macs", 1e6, "M multiply-adds"),
}


class PerImage(nn.Module):
    """The generated convolution as report 001 ran it: a loop over images, generator on vectors.

    `generator` is that of `minet.models.dwg_densenet121.GeneratedConv`.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 64, H/2, W/2)."""
        outputs = []
        for image in images:
            kernel = self.generator(image.mean(dim=(1, 2))).view(64, 3, 7, 7)
            outputs.append(F.conv2d(image[None], kernel, stride=2, padding=3))
        return torch.cat(outputs)


def as_profiled(name: str, *, num_classes: int) -> nn.Module:
    """Build a model as its report profiled it: `dwg_densenet121` image by image."""
    model = build(name, num_classes=num_classes)
    if name == "dwg_densenet121":
        conv = model.get_submodule("features.conv0")
        model.get_submodule("features").conv0 = PerImage(conv.get_submodule("generator"))
    return model
