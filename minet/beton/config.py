"""Settings of the betons: how images are stored."""

from collections.abc import Iterator
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
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        description="JPEG quality of storage `jpg`; null is 90.",
    )

    @field_validator("crop_px")
    @classmethod
    def _crop_fits(cls, crop_px: int, info: ValidationInfo) -> int:
        if crop_px > info.data.get("resize_px", crop_px):
            raise ValueError(f"must be at most resize_px, {info.data['resize_px']}")
        return crop_px

    @property
    def quality(self) -> int:
        """Return the JPEG quality of storage `jpg`."""
        return 90 if self.jpeg_quality is None else self.jpeg_quality


class BetonRunSettings(BetonSettings):
    """Settings of the stage `beton`."""

    root: str = Field(description="Folder that the paths of the index are relative to.")


def ineffective(place: str, beton: BetonSettings) -> Iterator[str]:
    """Yield settings of betons, given at `place`, that have no effect."""
    if beton.storage == "raw" and beton.jpeg_quality is not None:
        yield (
            f"{place}.jpeg_quality is {beton.jpeg_quality}; it has no effect where {place}.storage "
            f"is 'raw': set {place}.storage=jpg too, or leave it out"
        )
