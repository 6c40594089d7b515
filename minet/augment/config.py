"""Settings of augmentation, for training and for scoring."""

from typing import Annotated

from pydantic import AfterValidator, Field

from minet.core.settings import Fraction, NotNegative, Positive, Settings


def _check_scale(scale: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scale[0] <= scale[1]:
        raise ValueError("must be two fractions of the area, 0 < low <= high <= 1")
    return scale


def _check_ratio(ratio: tuple[float, float]) -> tuple[float, float]:
    if ratio[0] > ratio[1]:
        raise ValueError("must be two aspect ratios, low <= high")
    return ratio


class AugmentSettings(Settings):
    """Augmentation of training images, as torchvision's transforms of the same names."""

    flip: Fraction = Field(
        description="Probability of a horizontal flip.",
    )
    crop_scale: Annotated[tuple[Fraction, Fraction], AfterValidator(_check_scale)] = Field(
        description="Lowest and highest area of the random resized crop, as fractions of the "
        "image's area, 0 < low <= high; `[1.0, 1.0]` turns the crop off.",
    )
    crop_ratio: Annotated[tuple[Positive, Positive], AfterValidator(_check_ratio)] = Field(
        description="Lowest and highest aspect ratio (width / height) of the random resized crop.",
    )
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        description="Largest angle of a random rotation in either direction, in degrees; 0 is off.",
    )
    channel_shuffle: Fraction = Field(
        description="Probability that an image's channels are permuted.",
    )
    channel_dropout: Fraction = Field(
        description="Probability that one or two random channels of an image are zeroed.",
    )
    mixup_alpha: NotNegative = Field(
        description="Alpha of mixup's Beta(alpha, alpha) distribution; 0 turns mixup off.",
    )
    cutmix_alpha: NotNegative = Field(
        description="Alpha of CutMix's Beta(alpha, alpha) distribution; 0 turns CutMix off.",
    )


class CompatSettings(Settings):
    """Known bugs of the reports, for replication only."""

    wrap_pixels: bool = Field(
        description="Convert normalized pixels to uint8 with overflow (report 003).",
    )
    random_test_crop: bool = Field(
        description="Apply the random crop, flip and rotation of training to scored images too.",
    )
    shuffle_validation: Fraction = Field(
        description="Probability that a validation image's channels are permuted.",
    )


def mixes(augment: AugmentSettings) -> bool:
    """Return whether images are mixed in pairs (mixup or CutMix)."""
    return augment.mixup_alpha > 0 or augment.cutmix_alpha > 0


def eval_augment(
    augment: AugmentSettings, compat: CompatSettings, *, shuffle: float
) -> AugmentSettings | None:
    """Return the augmentation of scored images: None, unless a known bug is replicated.

    `shuffle` is the probability that an image's channels are permuted. Only with
    `compat.random_test_crop` are images cropped, rotated and flipped as in training.
    """
    if not shuffle and not compat.random_test_crop:
        return None
    off = {"channel_dropout": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    still = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0}
    changes = off | ({} if compat.random_test_crop else still) | {"channel_shuffle": shuffle}
    return augment.model_copy(update=changes)
