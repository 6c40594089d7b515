"""Settings of the count of costs."""

from typing import Annotated, Any

from pydantic import Field

from minet.core.settings import Pixels, Settings


class CostSettings(Settings):
    """The side of the one image whose forward pass is counted."""

    input_px: Pixels


class CostRunSettings(CostSettings):
    """What `cost` reads: `CostSettings` and one model with its builder and arguments."""

    model: str
    builder: str
    arguments: dict[str, Any]
    channels: Annotated[int, Field(ge=1, le=3)]
