"""Pinned counts and depths of every model; a new model needs a row in each table."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pin:
    """Costs of a model at 50 classes and 224 px; parameters are exact.

    Multiply-adds are those of convolutions and linear layers. `small_px` is an image size at which
    training is cheap, `other_px` a size other than 224 that the model accepts, None without one.
    """

    parameters: int
    macs_millions: float
    channels: int = 3
    arguments: dict[str, Any] = field(default_factory=dict)
    small_px: int = 32
    other_px: int | None = 96


# counted by three tools and compared with the reports' published figures
PINNED = {
    "alexnet4": [
        Pin(14_351_922, 253.2, small_px=64),
        Pin(56_618_610, 610.6, arguments={"full_width": True}, small_px=64),
    ],
    "bottleneck3": [Pin(2_526_834, 1_094.8), Pin(2_526_834, 372.3, arguments={"first_stride": 2})],
    "cnn3": [
        Pin(184_946, 505.9),
        Pin(184_658, 491.4, 2, {"channels": 2}),
        Pin(184_370, 477.0, 1, {"channels": 1}),
    ],
    "cool": [Pin(111_252, 562.1)],
    "densenet121": [Pin(7_005_106, 2_833.2)],
    "dwg_any": [
        Pin(7_400_498, 2_834.4),
        Pin(7_400_498, 2_794.7, 2),
        Pin(7_400_498, 2_754.9, 1),
        Pin(7_400_498, 2_913.8, 5),
    ],
    "dwg_densenet121": [Pin(8_209_842, 2_834.4)],
    "dynamic_resnet18": [Pin(44_984_702, 1_813.9)],
    "mobilenetv3_3": [Pin(42_154, 15.2), Pin(112_042, 15.275, arguments={"hidden": 1024})],
    "parallel": [Pin(408_099, 619.3)],
    "pool_attention": [
        Pin(184_675, 488.2),
        Pin(184_675, 488.2, 2),
        Pin(184_675, 488.2, 1),
        Pin(184_675, 488.2, 5),
    ],
    "resnet18": [Pin(11_202_162, 1_813.6)],
    "resnet34": [Pin(21_310_322, 3_663.3)],
    "resnet50": [Pin(23_610_482, 4_087.2)],
    "resnet101": [Pin(42_602_610, 7_799.5)],
    "resnet152": [Pin(58_246_258, 11_511.7)],
    "resnet18_slides": [Pin(11_204_978, 1_813.6)],
    "resnet34_flatten": [Pin(22_539_122, 3_664.5, small_px=224, other_px=None)],
    "rrdb": [Pin(42_354, 204.7)],
    "rrdb_rnn": [Pin(74_354, 426.3)],
}

# longest chain of dependent layers with weights
DEPTHS = {
    "alexnet4": 7,
    "bottleneck3": 12,
    "cnn3": 5,
    "cool": 5,
    "densenet121": 121,
    "dwg_any": 123,
    "dwg_densenet121": 123,
    "dynamic_resnet18": 66,
    "mobilenetv3_3": 15,
    "parallel": 5,
    "pool_attention": 7,
    "resnet18": 18,
    "resnet34": 34,
    "resnet50": 50,
    "resnet101": 101,
    "resnet152": 152,
    "resnet18_slides": 18,
    "resnet34_flatten": 34,
    "rrdb": 4,
    "rrdb_rnn": 6,
}
