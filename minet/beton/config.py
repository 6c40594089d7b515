"""Settings of the betons."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from minet.core.settings import Pixels, Settings


class BetonSettings(Settings):
    """How an image becomes a record of a beton."""

    resize_px: Pixels
    crop_px: Pixels
    storage: Literal["raw", "jpg"]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]

    @field_validator("crop_px")
    @classmethod
    def _crop_fits(cls, crop_px: int, info: ValidationInfo) -> int:
        if crop_px > info.data.get("resize_px", crop_px):
            raise ValueError(f"must be at most resize_px, {info.data['resize_px']}")
        return crop_px


class BetonRunSettings(BetonSettings):
    """What `beton` reads: `BetonSettings` and where the images are."""

    root: str
