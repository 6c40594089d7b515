"""From stored pixels to a model's input, on the device, with parameters that a plan has drawn.

Axes as in `minet.loader.batch`: images are (N, C, H, W), square with S pixels a side unless stated
otherwise.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment.channels import CHANNEL_SETS, input_channels
from minet.augment.plan import EpochPlan
from minet.core.arrays import IndexArray

# mean and std of ImageNet-1k's training images, as torchvision's pretrained models use them
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """Input that a model is trained on: size, channels, normalization."""

    input_px: int
    mean: tuple[float, float, float]  # of pixels from 0 to 1
    std: tuple[float, float, float]
    channels: str = "RGB"  # a key of `minet.augment.channels.CHANNEL_SETS`
    channel_mode: str = "zero"  # `minet.augment.channels.ChannelMode`
    wrap_pixels: bool = False

    def to(self, device: torch.device) -> "DeviceInputSpec":
        """Copy the statistics and the mask to a device, once for all batches: a copy is a sync."""
        indices = input_channels(self.channels, self.channel_mode)
        mean, std = (
            torch.tensor([values[channel] for channel in indices], device=device)
            for values in (self.mean, self.std)
        )
        channel_mask = channel_indices = None
        if self.channels != "RGB" and self.channel_mode == "zero":
            channel_mask = channel_set_mask(self.channels, like=mean)
        elif self.channels != "RGB":
            channel_indices = torch.tensor(indices, device=device)
        return DeviceInputSpec(
            input_px=self.input_px,
            mean=mean,
            std=std,
            channel_mask=channel_mask,
            channel_indices=channel_indices,
            sigmoid=self.channel_mode == "sigmoid",
            wrap_pixels=self.wrap_pixels,
        )


@dataclass(frozen=True)
class DeviceInputSpec:
    """An `InputSpec` on a device; mean and std are (C,) for the C input channels."""

    input_px: int
    mean: Tensor
    std: Tensor
    channel_mask: Tensor | None = None  # (3, 1, 1) float, 0 for channels that are masked
    channel_indices: Tensor | None = None  # (C,) int64, channels that are selected
    sigmoid: bool = False
    wrap_pixels: bool = False

    def resized(self, input_px: int) -> Self:
        """Return the spec for another input size."""
        return replace(self, input_px=input_px)


@dataclass(frozen=True)
class AugmentParams:
    """Rows of an `EpochPlan` on a device, one an image; None where the plan has none."""

    flips: Tensor | None = None  # (N,) bool
    boxes: Tensor | None = None  # (N, 4) float: top, left, height, width in pixels
    degrees: Tensor | None = None  # (N,) float
    channel_order: Tensor | None = None  # (N, 3) int64
    mix_params: Tensor | None = None  # (N, 5) float, as in the plan
    channel_mask: Tensor | None = None  # (N, 3) bool

    @classmethod
    def from_plan(cls, plan: EpochPlan, indices: IndexArray, device: torch.device) -> Self:
        """Copy the rows of some images, e.g. of a whole epoch in its order, to a device."""
        arrays = {field.name: getattr(plan, field.name) for field in fields(cls)}
        return cls(
            **{
                name: None if array is None else torch.from_numpy(array[indices]).to(device)
                for name, array in arrays.items()
            }
        )

    def narrow(self, start: int, length: int) -> Self:
        """Return views of `length` consecutive rows from `start`: those of one batch."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{
                name: None if tensor is None else tensor[start : start + length]
                for name, tensor in tensors.items()
            }
        )


def to_input(images: Tensor, spec: DeviceInputSpec, params: AugmentParams | None = None) -> Tensor:
    """Turn stored images into a model's input, augmented if parameters are given.

    (N, 3, S, S) uint8 to float (N, C, input_px, input_px), normalized, channels-last in memory; C
    is the number of input channels of the spec. Mixing is separate (`minet.augment.mixup`).
    """
    pixels = augment(_select_channels(images, spec), params or AugmentParams(), spec.input_px)
    inputs = normalize(pixels, spec.mean, spec.std)
    return wrap(inputs) if spec.wrap_pixels else inputs


def _select_channels(images: Tensor, spec: DeviceInputSpec) -> Tensor:
    """Select or mask the channels of a spec: uint8 (N, 3, S, S) to float (N, C, S, S)."""
    if spec.channel_indices is not None:
        images = images.index_select(1, spec.channel_indices)
    pixels = images.float()
    if spec.channel_mask is not None:
        pixels = pixels * spec.channel_mask
    # report 003 applied sigmoid to raw bytes: 0 becomes a half, all above 5 nearly 1
    return pixels.sigmoid() * 255 if spec.sigmoid else pixels


def augment(pixels: Tensor, params: AugmentParams, out_px: int) -> Tensor:
    """Rotate, crop, flip, resize, shuffle and drop channels: (N, C, S, S) to (N, C, out, out)."""
    if params.degrees is not None:
        pixels = rotate(pixels, params.degrees)
    if params.boxes is not None or params.flips is not None or pixels.shape[-1] != out_px:
        pixels = resample(pixels, params.boxes, params.flips, out_px)
    if params.channel_order is not None:
        pixels = shuffle_channels(pixels, params.channel_order)
    if params.channel_mask is not None:
        pixels = pixels * params.channel_mask[:, :, None, None]
    return pixels


def resample(pixels: Tensor, boxes: Tensor | None, flips: Tensor | None, out_px: int) -> Tensor:
    """Crop each image to its box, resize it and flip it where `flips` is true: (N, C, out, out).

    Without boxes whole images are resized; without flips none is flipped.
    Bilinear with antialiasing, as torchvision's resized_crop(antialias=True) without its rounding:
    a triangle filter as wide as the scale, one matrix for the rows and one for the columns of each
    image, so that arbitrary boxes take two batched matrix products.
    """
    count, channels, height_px, width_px = pixels.shape
    if boxes is None:
        boxes = _full_boxes(pixels)
    rows = _filters(boxes[:, 0], boxes[:, 2], height_px, out_px)
    columns = _filters(boxes[:, 1], boxes[:, 3], width_px, out_px)
    if flips is not None:
        columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    lines = pixels.permute(0, 2, 3, 1).reshape(count, height_px, width_px * channels)
    lines = rows @ lines  # (N, out, W C)
    lines = lines.view(count, out_px, width_px, channels).transpose(1, 2)
    lines = columns @ lines.reshape(count, width_px, out_px * channels)  # (N, out_w, out_h C)
    return lines.view(count, out_px, out_px, channels).permute(0, 3, 2, 1)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image counter-clockwise about its centre, bilinear, filled with black."""
    angles = torch.deg2rad(degrees)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


def shuffle_channels(pixels: Tensor, channel_order: Tensor) -> Tensor:
    """Permute the channels of each image: output channel c is input channel order[n, c]."""
    return pixels[torch.arange(len(pixels), device=pixels.device)[:, None], channel_order]


def normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalize pixels of 0..255 by the mean and std (C,) of pixels of 0..1; channels-last."""
    shift = (mean * 255)[:, None, None]
    scale = (1 / (std * 255))[:, None, None]
    return ((pixels - shift) * scale).contiguous(memory_format=torch.channels_last)


def wrap(inputs: Tensor) -> Tensor:
    """Convert normalized values to bytes that overflow, as report 003 did by mistake.

    It passed floats to torchvision's ToDtype(uint8, scale=True), which expects values from 0 to 1:
    values outside wrap around, so that dark pixels come out bright. The network then received
    floats from 0 to 255.
    """
    return torch.remainder(torch.trunc(inputs * 255.999), 256)


def channel_set_mask(channel_set: str, *, like: Tensor) -> Tensor:
    """Return 1 for each channel of a set and 0 for the others, (3, 1, 1); type and device `like`.

    KeyError if there is no such set.
    """
    channel_mask = like.new_zeros(3)
    channel_mask[list(CHANNEL_SETS[channel_set])] = 1
    return channel_mask[:, None, None]


def _full_boxes(pixels: Tensor) -> Tensor:
    """Return the box (N, 4) of each whole image, created on the device to avoid a sync."""
    count, _, height_px, width_px = pixels.shape
    corner = pixels.new_zeros(count, 2)
    sides = [pixels.new_full((count, 1), side_px) for side_px in (height_px, width_px)]
    return torch.cat([corner, *sides], dim=1)


def _filters(starts: Tensor, lengths: Tensor, in_px: int, out_px: int) -> Tensor:
    """Weights (N, out, in) of a triangle filter over the interval [start, start + length)."""
    scale = (lengths / out_px)[:, None, None]
    out_centres = torch.arange(out_px, device=starts.device)[None, :, None] + 0.5
    centres = starts[:, None, None] + out_centres * scale
    in_centres = torch.arange(in_px, device=starts.device)[None, None, :] + 0.5
    weights = (1 - (in_centres - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    first = starts[:, None, None]
    inside = (in_centres > first) & (in_centres < first + lengths[:, None, None])
    weights = weights * inside
    return weights / weights.sum(dim=-1, keepdim=True)
