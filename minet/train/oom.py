"""A batch that needs more memory than there is, told with one to try."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from minet.core.errors import InputError
from minet.train.config import TrainSettings

# how the allocators of a CPU say that there is none left
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
)


@contextmanager
def told_of_memory(recipe: TrainSettings, ranks: int, device: torch.device) -> Iterator[None]:
    """Turn running out of a device's memory into InputError: what was tried, what to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
        raise InputError(_advice(recipe, ranks, where)) from error


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _WORDS)


def _advice(recipe: TrainSettings, ranks: int, where: str) -> str:
    images = -(-recipe.batch_size // (ranks * recipe.accumulate))
    tried = f"{images} image{'s' if images > 1 else ''} of {recipe.input_px} px at once"
    if images == 1:
        return f"{where} has not the memory for {tried}; try a smaller train.input_px or model"
    parts = min(2 * recipe.accumulate, recipe.batch_size)
    fewer = max(ranks, recipe.accumulate, recipe.batch_size // 2)
    return (
        f"{where} has not the memory for {tried} (train.batch_size is {recipe.batch_size}, "
        f"train.accumulate {recipe.accumulate}); try train.accumulate={parts} (the same steps, in "
        f"parts) or train.batch_size={fewer}"
    )
