"""Settings of the data: the sample, the images and lists, the betons."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from minet.core.settings import AtLeastOne, Settings

SPLITS = ("train", "val", "test")


def _below_root(place: str) -> str:
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a path below data.root")
    return place


Below = Annotated[str, Field(min_length=1), AfterValidator(_below_root)]


class SampleSettings(Settings):
    """The synthetic data set; counts are images per split."""

    classes: Annotated[int, Field(ge=2, le=10)]
    train: AtLeastOne
    val: AtLeastOne
    test: AtLeastOne
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @field_validator(*SPLITS)
    @classmethod
    def _holds_each_class(cls, count: int, info: ValidationInfo) -> int:
        if count < info.data.get("classes", 0):
            raise ValueError(f"must be at least one image a class, {info.data['classes']}")
        return count


class DataSettings(Settings):
    """Where images and lists are; `train`, `val`, `test` are paths below `root`."""

    root: Annotated[str, Field(min_length=1)]
    layout: Literal["lists", "csv", "folders"]
    train: Below
    val: Below
    test: Below
    on_bad_image: Literal["error", "skip"]
