"""Settings of the betons: how images are stored."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from minet.core.settings import Settings, SidePx


class BetonSettings(Settings):
    """How an image is resized, cropped and stored in a beton."""

    resize_px: SidePx = Field(
        description="Length of an image's shorter side after resizing, in pixels.",
    )
    crop_px: SidePx = Field(
        description="Side of the stored square center crop, in pixels, at most `resize_px`.",
    )
    storage: Literal["raw", "jpg"] = Field(
        description="Store pixels uncompressed (`raw`) or as JPEG (`jpg`).",
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(
        description="JPEG quality of storage `jpg`.",
    )

    @field_validator("crop_px")
    @classmethod
    def _crop_fits(cls, crop_px: int, info: ValidationInfo) -> int:
        if crop_px > info.data.get("resize_px", crop_px):
            raise ValueError(f"must be at most resize_px, {info.data['resize_px']}")
        return crop_px


class BetonRunSettings(BetonSettings):
    """Settings of the stage `beton`."""

    root: str = Field(description="Folder that the paths of the index are relative to.")
