"""Settings of training: a recipe, and the run of one model."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from minet.augment.channels import ChannelMode, ChannelSet
from minet.augment.config import AugmentSettings, CompatSettings
from minet.core.settings import (
    AtLeastOne,
    Fraction,
    NotNegative,
    Positive,
    Settings,
    SidePx,
    Threads,
)
from minet.loader.config import Cache

RANDOM, IMAGENET = "random", "imagenet"  # values of `weights` other than the name of a file


class TrainSettings(Settings):
    """A training recipe; epochs count from 0."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "accumulate": "accumulation_steps",
        "protocol": "channel_mode",
        "start_px": "initial_px",
        "start_epochs": "growth_epochs",
        "decay_all": "decay_norm_and_bias",
        "clip_norm": "max_grad_norm",
        "step_epochs": "milestones",
        "step_factor": "gamma",
        "best_by": "selection_metric",
    }

    epochs: AtLeastOne = Field(
        description="Passes over the training split.",
    )
    batch_size: AtLeastOne = Field(
        description="Images per optimizer step, over all processes.",
    )
    accumulation_steps: AtLeastOne = Field(
        description="Micro-batches per optimizer step, at most `batch_size`: the same step in less "
        "memory; batch norm sees micro-batches.",
    )
    channels: ChannelSet = Field(
        description="Input channels of the model.",
    )
    channel_mode: ChannelMode = Field(
        description="Unused channels: `zero` = masked, `slice` = dropped (the model's argument "
        "`channels` is how many are left), `sigmoid` = dropped, the others through a sigmoid "
        "(report 003).",
    )
    input_px: SidePx = Field(
        description="Side of the model's input, in pixels.",
    )
    initial_px: Annotated[int, Field(ge=0)] = Field(
        description="Side of the input in epoch 0, in pixels, from 8 to `input_px`; 0 is "
        "`input_px` from the start.",
    )
    growth_epochs: NotNegative = Field(
        description="Epochs over which the input grows from `initial_px` to `input_px` in steps "
        "of 16 px, at most `epochs`; 0 is no growth.",
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        description="Optimizer of torch.optim.",
    )
    lr: Positive = Field(
        description="Peak learning rate.",
    )
    momentum: Fraction = Field(
        description="Momentum of `sgd`; 0 is off.",
    )
    nesterov: bool = Field(
        description="Nesterov momentum for `sgd`; needs `momentum` above 0.",
    )
    weight_decay: NotNegative = Field(
        description="Weight decay of the optimizer; 0 is off.",
    )
    decay_norm_and_bias: bool = Field(
        description="Decay all parameters; `false` exempts norms and biases.",
    )
    max_grad_norm: NotNegative = Field(
        description="Clip the gradient to this L2 norm; 0 is off.",
    )
    schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        description="Learning rate schedule after the warm-up.",
    )
    warmup_epochs: NotNegative = Field(
        description="Epochs of linear learning rate warm-up, at most `epochs`; 0 is off.",
    )
    milestones: tuple[AtLeastOne, ...] = Field(
        description="Epochs at which schedule `step` multiplies the learning rate by `gamma`.",
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Factor of the learning rate at each of `milestones`.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Label smoothing of the cross-entropy; 0 is off.",
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Decay per step of the exponential moving average of the weights, which is "
        "then evaluated and saved; 0 is off.",
    )
    selection_metric: Literal["loss", "accuracy"] = Field(
        description="Validation metric that selects the epoch whose weights are saved.",
    )
    normalize: Literal["dataset", "imagenet", "none"] = Field(
        description="Channel mean and std: of the training split, of ImageNet, or none (pixels "
        "from 0 to 1).",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        description="Precision of autocast; `auto` is bfloat16 on GPUs that support it, float32 "
        "elsewhere.",
    )
    compile: Literal["auto", "always", "never"] = Field(
        description="Use torch.compile; `auto` compiles on GPUs.",
    )
    deterministic: bool = Field(
        description="Use deterministic algorithms only: the same bytes in each run on a GPU too.",
    )
    processes: AtLeastOne = Field(
        description="Processes that share each batch, one per GPU if there are GPUs, at most "
        "`batch_size`.",
    )
    threads: Threads = Field(
        description="CPU threads of each process; 0 is its share of the cores, or "
        "OMP_NUM_THREADS; the number changes floating-point rounding.",
    )
    save_every_s: Positive = Field(
        description="Seconds between snapshots for resuming.",
    )
    tensorboard: bool = Field(
        description="Also write scalars and weight histograms to `tensorboard/`.",
    )
    dvclive: bool = Field(
        description="Also write scalars to `dvclive/`.",
    )
    augment: AugmentSettings = Field(
        description="Augmentation of training images.",
    )
    compat: CompatSettings = Field(
        description="Known bugs of the reports, for replication only.",
    )

    @field_validator("augment")
    @classmethod
    def _has_three_channels(cls, augment: AugmentSettings, info: ValidationInfo) -> AugmentSettings:
        channels, channel_mode = (info.data.get(name) for name in ("channels", "channel_mode"))
        if channels == "RGB" or channel_mode in ("zero", None):
            return augment
        for name in ("channel_shuffle", "channel_dropout"):
            if getattr(augment, name):
                raise ValueError(
                    f"{name} must be 0 where channel_mode {channel_mode} drops channels"
                )
        return augment

    @field_validator("accumulation_steps", "processes")
    @classmethod
    def _fits_in_the_batch(cls, count: int, info: ValidationInfo) -> int:
        if count > info.data.get("batch_size", count):
            raise ValueError(f"must be at most batch_size, {info.data['batch_size']}")
        return count

    @field_validator("initial_px")
    @classmethod
    def _fits_in_the_input(cls, initial_px: int, info: ValidationInfo) -> int:
        if initial_px and not 8 <= initial_px <= info.data.get("input_px", initial_px):
            input_px = info.data.get("input_px")
            raise ValueError(f"must be 0 (no growth) or from 8 to input_px, {input_px}")
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


# settings beyond plain training, each with the value that turns it off
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
    """Return the settings beyond plain training that a recipe turns on, for its metrics."""
    mixing = {
        name: value
        for name in ("channel_dropout", "mixup_alpha", "cutmix_alpha")
        if (value := getattr(recipe.augment, name))
    }
    compat = {name: value for name, value in recipe.compat.model_dump().items() if value}
    extras = {
        name: value for name, off in _EXTRAS.items() if (value := getattr(recipe, name)) != off
    }
    if not recipe.growth_epochs:  # no growth
        extras.pop("initial_px", None)
    return extras | mixing | ({"compat": compat} if compat else {})


# Runtime-only settings; they affect results only by rounding.
_RUNTIME_ONLY = {"save_every_s", "processes", "tensorboard", "dvclive"}


class RunSettings(Settings):
    """Settings of the stage `train`: one model and its recipe."""

    model: str = Field(description="Name of the model.")
    builder: str = Field(description='Builder of the model, as "module:function".')
    arguments: dict[str, Any] = Field(description="Arguments of the builder.")
    weights: str = Field(
        description="Initial weights: `random`, `imagenet`, or the name of a file.",
    )
    reinitialized: tuple[str, ...] = Field(
        description="Names of layers that stay random whatever the initial weights are.",
    )
    seed: int = Field(description="Seed of the run.")
    cache: Cache = Field(
        description="Where training reads images from; it changes no result.",
    )
    train: TrainSettings = Field(description="The recipe.")

    def record(self) -> dict[str, Any]:
        """Return the settings that results depend on, as plain data."""
        return self.model_dump(mode="json", exclude={"cache": True, "train": _RUNTIME_ONLY})

    def runtime(self) -> dict[str, Any]:
        """Return the others: how a run is saved, logged and spread over processes."""
        return self.model_dump(mode="json", include={"cache": True, "train": _RUNTIME_ONLY})
