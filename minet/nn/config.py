"""Settings of the weights that training starts from."""

from pydantic import Field

from minet.core.settings import Settings

RANDOM, IMAGENET = "random", "imagenet"  # values of `weights` other than the name of a file


class WeightsSettings(Settings):
    """Settings of the stage `weights`."""

    file: str | None = Field(
        description="File in data/weights; null for random weights.",
    )
    url: str | None = Field(
        description="Address to download the file from; null if the user provides it.",
    )
