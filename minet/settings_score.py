"""Settings of evaluation and of the count of costs."""

from typing import Annotated, Any

from pydantic import Field

from minet.settings import AtLeastOne, Pixels, Settings


class EvaluateSettings(Settings):
    """How the test split is scored; `mistakes` is the size of the gallery of worst mistakes.

    With `flip`, an image's probabilities are the means of those of it and of its mirror image.
    """

    batch_size: AtLeastOne
    flip: bool
    mistakes: Annotated[int, Field(ge=0, le=100)]


class CostSettings(Settings):
    """The side of the one image whose forward pass is counted."""

    input_px: Pixels


class CostRunSettings(CostSettings):
    """What `cost` reads: `CostSettings` and one model with its builder and arguments."""

    model: str
    builder: str
    arguments: dict[str, Any]
