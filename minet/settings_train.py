"""Settings of training: a recipe with its augmentation, and one model's run."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from minet.settings import AtLeastOne, Pixels, Positive, Settings, Share
from minet.settings_data import Cache

RANDOM, IMAGENET = "random", "imagenet"  # what `weights` may be, besides the name of a file


class AugmentSettings(Settings):
    """What happens to a training image; ranges are torchvision's of the same name."""

    flip: Share
    crop_scale: tuple[Share, Share]
    crop_ratio: tuple[Positive, Positive]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    channel_shuffle: Share

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


class TrainSettings(Settings):
    """A recipe; epochs and steps count from 0."""

    epochs: AtLeastOne
    batch_size: AtLeastOne
    input_px: Pixels
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive
    momentum: Share
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "step", "constant"]
    warmup_epochs: Annotated[float, Field(ge=0)]
    step_epochs: tuple[AtLeastOne, ...]
    step_factor: Annotated[float, Field(gt=0, le=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    best_by: Literal["loss", "accuracy"]
    normalize: Literal["dataset", "imagenet", "none"]
    deterministic: bool
    save_every_s: Positive
    augment: AugmentSettings

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup_epochs: float, info: ValidationInfo) -> float:
        if warmup_epochs > info.data.get("epochs", warmup_epochs):
            raise ValueError(f"must be at most epochs, {info.data['epochs']}")
        return warmup_epochs


class RunSettings(Settings):
    """What `train` reads: one model with its builder ("module:function"), arguments, recipe.

    `weights` says what it starts from; layers named in `fresh` stay random all the same. `cache`
    changes no byte of the outcome, as `train.save_every_s` does not.
    """

    model: str
    builder: str
    arguments: dict[str, Any]
    weights: str
    fresh: tuple[str, ...]
    seed: int
    cache: Cache
    train: TrainSettings

    def record(self) -> dict[str, Any]:
        """Give what the bytes of the outcome depend on, as plain data."""
        return self.model_dump(mode="json", exclude={"cache": True, "train": {"save_every_s"}})
