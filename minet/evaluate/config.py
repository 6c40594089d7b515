"""Settings of evaluation on the test split."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from minet.core.settings import AtLeastOne, Fraction, Settings, Threads


class SubmissionSettings(Settings):
    """Kaggle submission format of `runs/current/submission.csv`."""

    columns: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)] = Field(
        description="Names of the two columns: image, predicted class.",
    )
    ids: Literal["stem", "name", "path"] = Field(
        description="How an image is identified: file name without suffix, file name, or path.",
    )
    classes: Literal["number", "name"] = Field(
        description="How a class is written: its number or its name.",
    )


class EvaluateSettings(Settings):
    """Evaluation of the trained model on the test split."""

    RENAMED: ClassVar[Mapping[str, str]] = {"absent": "missing_channels"}

    batch_size: AtLeastOne = Field(
        description="Images per batch.",
    )
    threads: Threads = Field(
        description="CPU threads; 0 leaves the number to torch; the number changes "
        "floating-point rounding.",
    )
    flip: bool = Field(
        description="Average the probabilities of each image and of its mirror image.",
    )
    missing_channels: Literal["zero", "slice"] = Field(
        description="Missing channels when a model trained on all three is tested on fewer: "
        "`zero` = masked, `slice` = dropped, for models that take any number.",
    )
    channel_shuffle: Fraction = Field(
        description="Probability that a test image's channels are permuted.",
    )
    mistakes: Annotated[int, Field(ge=0, le=100)] = Field(
        description="Number of images in the gallery of the worst mistakes; 0 is none.",
    )
    submission: SubmissionSettings = Field(
        description="Kaggle submission format of `runs/current/submission.csv`.",
    )
