"""Settings of training: a recipe with its augmentation, and one model's run."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from minet.augment.channels import ChannelMode, ChannelSet
from minet.augment.config import AugmentSettings, CompatSettings
from minet.core.settings import (
    AtLeastOne,
    Fraction,
    NotNegative,
    Pixels,
    Positive,
    Settings,
    Threads,
)
from minet.loader.config import Cache

RANDOM, IMAGENET = "random", "imagenet"  # what `weights` may be, besides the name of a file


class TrainSettings(Settings):
    """A recipe; epochs and steps count from 0."""

    epochs: AtLeastOne
    batch_size: AtLeastOne
    accumulation_steps: AtLeastOne
    channels: ChannelSet
    channel_mode: ChannelMode
    input_px: Pixels
    initial_px: Annotated[int, Field(ge=0)]
    growth_epochs: NotNegative
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive
    momentum: Fraction
    nesterov: bool
    weight_decay: NotNegative
    decay_norm_and_bias: bool
    max_grad_norm: NotNegative
    schedule: Literal["cosine", "linear", "step", "constant"]
    warmup_epochs: NotNegative
    milestones: tuple[AtLeastOne, ...]
    gamma: Annotated[float, Field(gt=0, le=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    selection_metric: Literal["loss", "accuracy"]
    normalize: Literal["dataset", "imagenet", "none"]
    precision: Literal["auto", "float32", "bfloat16"]
    compile: Literal["auto", "always", "never"]
    deterministic: bool
    processes: AtLeastOne
    threads: Threads
    save_every_s: Positive
    tensorboard: bool
    dvclive: bool
    augment: AugmentSettings
    compat: CompatSettings

    @field_validator("augment")
    @classmethod
    def _has_three_planes(cls, augment: AugmentSettings, info: ValidationInfo) -> AugmentSettings:
        channels, channel_mode = (info.data.get(name) for name in ("channels", "channel_mode"))
        if channels == "RGB" or channel_mode in ("zero", None):
            return augment
        for name in ("channel_shuffle", "channel_dropout"):
            if getattr(augment, name):
                raise ValueError(
                    f"{name} must be 0 where channel_mode {channel_mode} leaves planes out"
                )
        return augment

    @field_validator("accumulation_steps", "processes")
    @classmethod
    def _batch_is_enough(cls, parts: int, info: ValidationInfo) -> int:
        if parts > info.data.get("batch_size", parts):
            raise ValueError(f"must be at most batch_size, {info.data['batch_size']}")
        return parts

    @field_validator("initial_px")
    @classmethod
    def _start_is_smaller(cls, initial_px: int, info: ValidationInfo) -> int:
        if initial_px and not 8 <= initial_px <= info.data.get("input_px", initial_px):
            most = info.data.get("input_px")
            raise ValueError(f"must be 0 (no growth) or from 8 to input_px, {most}")
        return initial_px

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("optimizer") == "sgd" and not info.data.get("momentum", 1):
            raise ValueError("must be false where momentum is 0")
        return nesterov

    @field_validator("growth_epochs", "warmup_epochs")
    @classmethod
    def _fits_in_the_run(cls, epochs: float, info: ValidationInfo) -> float:
        if epochs > info.data.get("epochs", epochs):
            raise ValueError(f"must be at most epochs, {info.data['epochs']}")
        return epochs


# what goes beyond plain training, with the values that switch it off
_EXTRAS: dict[str, object] = {
    "initial_px": 0,
    "max_grad_norm": 0.0,
    "accumulation_steps": 1,
    "label_smoothing": 0.0,
    "ema_decay": 0.0,
    "channels": "RGB",
    "channel_mode": "zero",
}


def extra_settings(recipe: TrainSettings) -> dict[str, object]:
    """Give what a recipe uses beyond plain training, for its metrics."""
    mixing = {
        name: value
        for name in ("channel_dropout", "mixup_alpha", "cutmix_alpha")
        if (value := getattr(recipe.augment, name))
    }
    compat = {name: value for name, value in recipe.compat.model_dump().items() if value}
    extras = {
        name: value for name, off in _EXTRAS.items() if (value := getattr(recipe, name)) != off
    }
    if not recipe.growth_epochs:  # nothing grows
        extras.pop("initial_px", None)
    return extras | mixing | ({"compat": compat} if compat else {})


# settings of `train` that say how a run is done and watched; none changes what comes of it, but for
# the rounding of sums that several processes share
_CONDUCT = {"save_every_s", "processes", "tensorboard", "dvclive"}


class RunSettings(Settings):
    """What `train` reads: one model with its builder ("module:function"), arguments, recipe.

    `weights` says what it starts from; layers named in `reinitialized` stay random all the same. `cache`
    changes no byte of the outcome.
    """

    model: str
    builder: str
    arguments: dict[str, Any]
    weights: str
    reinitialized: tuple[str, ...]
    seed: int
    cache: Cache
    train: TrainSettings

    def record(self) -> dict[str, Any]:
        """Give what the outcome depends on, as plain data."""
        return self.model_dump(mode="json", exclude={"cache": True, "train": _CONDUCT})
