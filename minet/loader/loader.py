"""Open betons for training: in memory if they fit, else streamed from their files.

Both kinds of loader yield the same bytes. Nothing is compiled and FFCV is not imported: either
would take longer than reading a small split.
"""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch

from minet.core.errors import InputError
from minet.loader.batch import Source
from minet.loader.config import Cache
from minet.loader.memory import free_bytes
from minet.loader.resident import ResidentLoader
from minet.loader.stream import StreamLoader

RESIDENT_FRACTION = 0.5  # of the free memory; the rest is for the model and its work


class BetonLoader(Source, Protocol):
    """Batches of one beton: what `StreamLoader` and `ResidentLoader` have in common."""

    record: dict[str, Any]  # the sidecar, `<split>.json` beside the beton
    resident: bool


def open_loaders(
    betons: Iterable[tuple[Path, int]],
    *,
    workers: int,
    cache: Cache,
    device: torch.device,
    local_world_size: int = 1,
) -> list[BetonLoader]:
    """Open the betons of several splits, each with its batch size: all resident or all streamed.

    With `cache` auto they are resident on `device` if together they need at most RESIDENT_FRACTION
    of its free memory. The host's free memory is divided among `local_world_size` processes, a
    GPU's is not. InputError if they must be resident and do not fit.
    """
    on_gpu = device.type == "cuda"
    streams = [
        StreamLoader(path, batch_size=batch_size, workers=workers, pin_memory=on_gpu)
        for path, batch_size in betons
    ]
    if cache == "stream":
        return [*streams]
    needed = sum(prod(stream.shape) for stream in streams)
    free = free_bytes(device) // (1 if on_gpu else local_world_size)
    if cache == "resident" and needed > free:
        raise InputError(
            f"data.cache is resident, but the images need {needed / 1e9:.1f} GB and {device} has "
            f"{free / 1e9:.1f} GB free; allowed: auto, stream"
        )
    if cache == "resident" or needed <= RESIDENT_FRACTION * free:
        return [ResidentLoader(stream, device) for stream in streams]
    return [*streams]
