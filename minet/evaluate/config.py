"""Settings of evaluation and of the count of costs."""

from typing import Annotated, Literal

from pydantic import Field

from minet.core.settings import AtLeastOne, Fraction, Settings, Threads


class SubmissionSettings(Settings):
    """The table of predictions that a contest takes: its two columns, what stands in them."""

    columns: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    ids: Literal["stem", "name", "path"]
    classes: Literal["number", "name"]


class EvaluateSettings(Settings):
    """How the test split is scored; `mistakes` is the size of the gallery of worst mistakes.

    With `flip`, an image's probabilities are the means of those of it and of its mirror image.
    `missing_channels` is how planes are taken away from a model that was given all of them;
    `channel_shuffle` is the probability that an image's planes are shuffled.
    """

    batch_size: AtLeastOne
    threads: Threads
    flip: bool
    missing_channels: Literal["zero", "slice"]
    channel_shuffle: Fraction
    mistakes: Annotated[int, Field(ge=0, le=100)]
    submission: SubmissionSettings
