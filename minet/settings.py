"""Settings as validated, frozen types: the sections of params.yaml and what each stage reads."""

import difflib
import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from minet.errors import InputError
from minet.results import read_json

SPLITS = ("train", "val", "test")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=8, le=4096)]


def _below_root(place: str) -> str:
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a path below data.root")
    return place


Below = Annotated[str, Field(min_length=1), AfterValidator(_below_root)]


class Settings(BaseModel):
    """A section: no unknown keys, no conversions (a quoted number is not a number), frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class SampleSettings(Settings):
    """The synthetic data set; counts are images per split."""

    classes: Annotated[int, Field(ge=2, le=10)]
    train: AtLeastOne
    val: AtLeastOne
    test: AtLeastOne
    seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _each_class_in_each_split(self) -> Self:
        for split in SPLITS:
            if getattr(self, split) < self.classes:
                raise ValueError(f"{split} must hold at least one image for each class")
        return self


class DataSettings(Settings):
    """Where images and lists are; `train`, `val`, `test` are paths below `root`."""

    root: Annotated[str, Field(min_length=1)]
    layout: Literal["lists", "csv", "folders"]
    train: Below
    val: Below
    test: Below
    on_bad_image: Literal["error", "skip"]


class BetonSettings(Settings):
    """How an image becomes a record of a beton."""

    resize_px: Pixels
    crop_px: Pixels
    storage: Literal["raw", "jpg"]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_px > self.resize_px:
            raise ValueError(f"crop_px must be at most resize_px, which is {self.resize_px}")
        return self


class AugmentSettings(Settings):
    """What happens to a training image; ranges are torchvision's of the same name."""

    flip: Share
    crop_scale: tuple[Share, Share]
    crop_ratio: tuple[Positive, Positive]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    channel_shuffle: Share

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError("crop_scale must be two shares of the area, 0 < low <= high <= 1")
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError("crop_ratio must be two aspect ratios, low <= high")
        return self


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

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs must be at most epochs, which is {self.epochs}")
        return self


class EvaluateSettings(Settings):
    """How the test split is scored; `mistakes` is the size of the gallery of worst mistakes."""

    batch_size: AtLeastOne
    mistakes: Annotated[int, Field(ge=0, le=100)]


class CostSettings(Settings):
    """The side of the one image whose forward pass is counted."""

    input_px: Pixels


class Params(Settings):
    """params.yaml, whole; a block of `models` holds a builder's arguments and its own `train`."""

    model: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sample: SampleSettings
    data: DataSettings
    beton: BetonSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    cost: CostSettings
    models: dict[str, dict[str, Any]]

    def arguments(self, model: str) -> dict[str, Any]:
        """Give a model's own arguments, without the recipe."""
        return {key: value for key, value in self.models[model].items() if key != "train"}


class RunSettings(Settings):
    """What `train` reads: one model with its builder ("module:function"), arguments, recipe."""

    model: str
    builder: str
    arguments: dict[str, Any]
    seed: int
    train: TrainSettings


class CostRunSettings(Settings):
    """What `cost` reads."""

    model: str
    builder: str
    arguments: dict[str, Any]
    input_px: int


class BetonRunSettings(BetonSettings):
    """What `beton` reads: `BetonSettings` and where the images are."""

    root: str


SettingsType = TypeVar("SettingsType", bound=BaseModel)


def read_settings(path: Path, kind: type[SettingsType]) -> SettingsType:
    """Read a consumer's settings, as the resolve stage wrote them."""
    try:
        return kind.model_validate_json(json.dumps(read_json(path)))
    except ValidationError as error:
        raise InputError(*(f"{path}: {text}" for text in setting_problems(error, kind))) from error


def setting_problems(
    error: ValidationError, kind: type[BaseModel], *, prefix: tuple[str, ...] = ()
) -> list[str]:
    """Say each problem as "key is value; what is allowed", keys dotted as `-S` takes them."""
    return [_describe(detail, kind, prefix) for detail in error.errors()]


def _describe(detail: Mapping[str, Any], kind: type[BaseModel], prefix: tuple[str, ...]) -> str:
    place = [str(part) for part in detail["loc"]]
    key = ".".join((*prefix, *place))
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(kind, place[:-1])
        return f"{key} is not a setting; {choices(place[-1], allowed)}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    if isinstance(detail["input"], dict):  # a rule over several keys names them itself
        return f"{key}: {text}" if key else text
    return f"{key} is {detail['input']!r}; {text[0].lower()}{text[1:]}"


def choices(wrong: str, allowed: Collection[str]) -> str:
    """Say what is allowed, the nearest first: "did you mean rrdb? allowed: cnn3, rrdb"."""
    near = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(sorted(allowed)) or 'none'}"


def _fields_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    """Names of the settings in the section at `place`."""
    for part in place:
        field = kind.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        kind = field.annotation
    return list(kind.model_fields)
