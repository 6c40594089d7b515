"""Settings of the cost of a model."""

from typing import Annotated, Any

from pydantic import Field

from minet.core.settings import Settings, SidePx


class CostSettings(Settings):
    """The input whose forward pass is counted: one image."""

    input_px: SidePx | None = Field(
        description="Side of the image, in pixels; null is the `train.input_px` of the model.",
    )


class CostRunSettings(Settings):
    """Settings of the stage `cost`: one model and its input."""

    input_px: SidePx = Field(description="Side of the image, in pixels.")
    model: str = Field(description="Name of the model.")
    builder: str = Field(description='Builder of the model, as "module:function".')
    arguments: dict[str, Any] = Field(description="Arguments of the builder.")
    channels: Annotated[int, Field(ge=1, le=3)] = Field(
        description="Number of input channels.",
    )
