"""From stored pixels to a model's input, on the device, from draws that a plan made.

Axes as in `minet.loader.batch`: images are (N, C, H, W) with square sides S unless said otherwise.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment.channels import CHANNEL_SETS, input_channels
from minet.augment.plan import EpochPlan
from minet.core.arrays import IndexArray

# Means and deviations of ImageNet-1k's training images, as torchvision's pretrained models use them
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """What a model was trained to see: the side of its input, the planes, the normalisation."""

    input_px: int
    mean: tuple[float, float, float]  # of pixels from 0 to 1
    std: tuple[float, float, float]
    channels: str = "RGB"  # as in `minet.augment.transforms.channels`
    channel_mode: str = "zero"
    wrap_pixels: bool = False

    def on(self, device: torch.device) -> "DeviceInputSpec":
        """Bring what is needed to a device, once for all batches: each copy there is a wait."""
        given = input_channels(self.channels, self.channel_mode)
        mean, std = (
            torch.tensor([value[plane] for plane in given], device=device)
            for value in (self.mean, self.std)
        )
        kept = planes = None
        if self.channels != "RGB" and self.channel_mode == "zero":
            kept = mask(mean, self.channels)
        elif self.channels != "RGB":
            planes = torch.tensor(given, device=device)
        squashed = self.channel_mode == "sigmoid"
        return DeviceInputSpec(self.input_px, mean, std, kept, planes, squashed, self.wrap_pixels)


@dataclass(frozen=True)
class DeviceInputSpec:
    """An `InputSpec` on a device; statistics are (C,) for the C planes that the model is given."""

    input_px: int
    mean: Tensor
    std: Tensor
    kept: Tensor | None = None  # (3, 1, 1) 0 for planes that are to be black
    planes: Tensor | None = None  # (C,) int64, which planes are taken
    squashed: bool = False
    wrapped: bool = False

    def resized(self, image_size: int) -> Self:
        """Give the form of images of another side."""
        return replace(self, input_px=image_size)


@dataclass(frozen=True)
class AugmentParams:
    """Rows of an `EpochPlan` on the device; None where the plan draws nothing."""

    flips: Tensor | None = None  # (N,) bool
    boxes: Tensor | None = None  # (N, 4) float: top, left, height, width in pixels
    degrees: Tensor | None = None  # (N,) float
    channels: Tensor | None = None  # (N, 3) int64
    mixes: Tensor | None = None  # (N, 5) float, as in the plan
    kept: Tensor | None = None  # (N, 3) bool

    @classmethod
    def of(cls, plan: EpochPlan, indices: IndexArray, device: torch.device) -> Self:
        """Take the rows of a plan that belong to images, say to all of an epoch in their order."""
        draws = (plan.flips, plan.boxes, plan.degrees, plan.channels, plan.mixes, plan.kept)
        return cls(
            *(
                None if draw is None else torch.from_numpy(draw[indices]).to(device)
                for draw in draws
            )
        )

    def part(self, first: int, images: int) -> Self:
        """Take the rows of a batch, which lie together."""
        rows = (self.flips, self.boxes, self.degrees, self.channels, self.mixes, self.kept)
        return type(self)(*(None if row is None else row[first : first + images] for row in rows))


def to_input(images: Tensor, form: DeviceInputSpec, draws: AugmentParams | None = None) -> Tensor:
    """Bring stored images to a model's input, augmented if draws are given.

    (N, 3, S, S) uint8 to float (N, C, input, input), normalised, channels-last in memory; C is the
    number of planes that the form gives. Mixing is not part of it (`minet.augment.mixup`).
    """
    pixels = augment(_given(images, form), draws or AugmentParams(), form.input_px)
    inputs = normalize(pixels, form.mean, form.std)
    return wrap(inputs) if form.wrapped else inputs


def _given(images: Tensor, form: DeviceInputSpec) -> Tensor:
    """Take the planes of a form, some black: uint8 (N, 3, S, S) to float (N, C, S, S)."""
    if form.planes is not None:
        images = images.index_select(1, form.planes)
    pixels = images.float()
    if form.kept is not None:
        pixels = pixels * form.kept
    # report 003 squashed bytes as they were: 0 becomes a half, all above 5 nearly 1
    return pixels.sigmoid() * 255 if form.squashed else pixels


def augment(pixels: Tensor, draws: AugmentParams, out_px: int) -> Tensor:
    """Rotate, crop, flip, resize, shuffle and drop planes: (N, C, S, S) to (N, C, out, out)."""
    if draws.degrees is not None:
        pixels = rotate(pixels, draws.degrees)
    if draws.boxes is not None or draws.flips is not None or pixels.shape[-1] != out_px:
        pixels = resample(pixels, draws.boxes, draws.flips, out_px)
    if draws.channels is not None:
        pixels = shuffle_channels(pixels, draws.channels)
    if draws.kept is not None:
        pixels = pixels * draws.kept[:, :, None, None]
    return pixels


def resample(pixels: Tensor, boxes: Tensor | None, flips: Tensor | None, out_px: int) -> Tensor:
    """Cut a box out of each image and resize it, mirrored where `flips` says: (N, C, out, out).

    No boxes: whole images; no flips: none is mirrored.
    Bilinear with antialiasing, as torchvision's resized_crop(antialias=True) without its rounding:
    a triangle filter as wide as the scale, one matrix for the rows and one for the columns of each
    image, so that any boxes take two batched matrix products.
    """
    images, planes, height_px, width_px = pixels.shape
    if boxes is None:
        boxes = _whole(pixels)
    rows = _filters(boxes[:, 0], boxes[:, 2], height_px, out_px)
    columns = _filters(boxes[:, 1], boxes[:, 3], width_px, out_px)
    if flips is not None:
        columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    lines = pixels.permute(0, 2, 3, 1).reshape(images, height_px, width_px * planes)
    lines = rows @ lines  # (N, out, W C)
    lines = lines.view(images, out_px, width_px, planes).transpose(1, 2)
    lines = columns @ lines.reshape(images, width_px, out_px * planes)  # (N, out_w, out_h C)
    return lines.view(images, out_px, out_px, planes).permute(0, 3, 2, 1)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre, bilinear, black where nothing was."""
    angles = torch.deg2rad(degrees)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


def shuffle_channels(pixels: Tensor, channels: Tensor) -> Tensor:
    """Reorder the planes of each image: plane channels[n, c] of image n comes to place c."""
    return pixels[torch.arange(len(pixels), device=pixels.device)[:, None], channels]


def normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring pixels from 0..255 to mean 0 and deviation 1; `mean`, `std` (C,) are of pixels 0..1."""
    shift = (mean * 255)[:, None, None]
    scale = (1 / (std * 255))[:, None, None]
    return ((pixels - shift) * scale).contiguous(memory_format=torch.channels_last)


def wrap(inputs: Tensor) -> Tensor:
    """Turn normalised values into bytes that wrap around, as report 003 did by mistake.

    It gave floats to torchvision's ToDtype(uint8, scale=True), which is made for values from 0 to
    1: what lies outside starts again from the other end, so that dark pixels come out bright. The
    network then saw floats from 0 to 255.
    """
    return torch.remainder(torch.trunc(inputs * 255.999), 256)


def _whole(pixels: Tensor) -> Tensor:
    """Give the box (N, 4) of each whole image, made on the device: no copy to wait for."""
    images, _, height_px, width_px = pixels.shape
    corner = pixels.new_zeros(images, 2)
    sides = [pixels.new_full((images, 1), image_size) for image_size in (height_px, width_px)]
    return torch.cat([corner, *sides], dim=1)


def _filters(starts: Tensor, lengths: Tensor, in_px: int, out_px: int) -> Tensor:
    """Weights (N, out, in) of a triangle filter over the interval [start, start + length)."""
    scale = (lengths / out_px)[:, None, None]
    places = torch.arange(out_px, device=starts.device)[None, :, None] + 0.5
    centres = starts[:, None, None] + places * scale
    pixels = torch.arange(in_px, device=starts.device)[None, None, :] + 0.5
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    first = starts[:, None, None]
    inside = (pixels > first) & (pixels < first + lengths[:, None, None])
    weights = weights * inside
    return weights / weights.sum(dim=-1, keepdim=True)


def mask(images: Tensor, channel_set: str) -> Tensor:
    """Give 1 for each plane of a set and 0 for the others, (3, 1, 1), on the images' device."""
    kept = images.new_zeros(3)
    kept[list(CHANNEL_SETS[channel_set])] = 1
    return kept[:, None, None]
