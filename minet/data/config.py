"""Settings of the data: the synthetic sample, and where images and lists are."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from minet.core.settings import AtLeastOne, Seed, Settings

SPLITS = ("train", "val", "test")


def _check_below_root(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError("must be a path below data.root")
    return path


PathBelowRoot = Annotated[str, Field(min_length=1), AfterValidator(_check_below_root)]


class SampleSettings(Settings):
    """The synthetic data set in `data/sample`."""

    classes: Annotated[int, Field(ge=2, le=10)] = Field(
        description="Number of classes.",
    )
    train: AtLeastOne = Field(
        description="Number of training images, at least one per class.",
    )
    val: AtLeastOne = Field(
        description="Number of validation images, at least one per class.",
    )
    test: AtLeastOne = Field(
        description="Number of test images, at least one per class.",
    )
    seed: Seed = Field(
        description="Seed of the images.",
    )

    @field_validator(*SPLITS)
    @classmethod
    def _has_each_class(cls, count: int, info: ValidationInfo) -> int:
        if count < info.data.get("classes", 0):
            raise ValueError(f"must be at least one image per class, {info.data['classes']}")
        return count


class SampleRunSettings(SampleSettings):
    """Settings of the stage `sample`."""

    drawn: bool = Field(True, description="Draw the images; `false` leaves the folder empty.")


class DataSettings(Settings):
    """Where images and their labels are."""

    root: Annotated[str, Field(min_length=1)] = Field(
        description="Folder of the images.",
    )
    layout: Literal["lists", "csv", "folders"] = Field(
        description="Where labels come from: list files, CSV files, or one folder per class.",
    )
    train: PathBelowRoot = Field(
        description="List file, CSV file or folder of the training split, relative to `data.root`.",
    )
    val: PathBelowRoot = Field(
        description="The same for the validation split, relative to `data.root`.",
    )
    test: PathBelowRoot = Field(
        description="The same for the test split, relative to `data.root`.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        description="Stop at missing, unreadable or duplicate images (`error`), or skip them.",
    )
