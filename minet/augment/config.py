"""Settings of augmentation: what happens to the images of training, and to those scored."""

from typing import Annotated

from pydantic import Field, field_validator

from minet.core.settings import Fraction, NotNegative, Positive, Settings


class AugmentSettings(Settings):
    """What happens to a training image; ranges are torchvision's of the same name."""

    flip: Fraction
    crop_scale: tuple[Fraction, Fraction]
    crop_ratio: tuple[Positive, Positive]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    channel_shuffle: Fraction
    channel_dropout: Fraction
    mixup_alpha: NotNegative
    cutmix_alpha: NotNegative

    @field_validator("crop_scale")
    @classmethod
    def _scales_ascend(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("must be two shares of the area, 0 < low <= high <= 1")
        return scale

    @field_validator("crop_ratio")
    @classmethod
    def _ratios_ascend(cls, ratio: tuple[float, float]) -> tuple[float, float]:
        if ratio[0] > ratio[1]:
            raise ValueError("must be two aspect ratios, low <= high")
        return ratio


class CompatSettings(Settings):
    """What published experiments did by mistake; to find their figures again, for nothing else."""

    wrap_pixels: bool
    random_test_crop: bool
    shuffle_validation: Fraction


def mixes(augment: AugmentSettings) -> bool:
    """Whether images are mixed in pairs."""
    return augment.mixup_alpha > 0 or augment.cutmix_alpha > 0


def scored_augment(
    augment: AugmentSettings, compat: CompatSettings, *, shuffle: float
) -> AugmentSettings | None:
    """Give what happens to images that are scored; None if nothing, as is right.

    Their planes are shuffled with a probability; only `compat.random_test_crop` has them cropped,
    turned and mirrored as in training.
    """
    if not shuffle and not compat.random_test_crop:
        return None
    off = {"channel_dropout": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    still = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0}
    changes = off | ({} if compat.random_test_crop else still) | {"channel_shuffle": shuffle}
    return augment.model_copy(update=changes)
