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
def oom_as_input_error(
    recipe: TrainSettings, world_size: int, device: torch.device
) -> Iterator[None]:
    """Turn running out of a device's memory into InputError: what was tried, what to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
        raise InputError(_advice(recipe, world_size, where)) from error


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _WORDS)


def _advice(recipe: TrainSettings, world_size: int, where: str) -> str:
    images = -(-recipe.batch_size // (world_size * recipe.accumulation_steps))
    tried = f"{images} image{'s' if images > 1 else ''} of {recipe.input_px} px at once"
    if images == 1:
        return f"{where} has not the memory for {tried}; try a smaller train.input_px or model"
    parts = min(2 * recipe.accumulation_steps, recipe.batch_size)
    fewer = max(world_size, recipe.accumulation_steps, recipe.batch_size // 2)
    return (
        f"{where} has not the memory for {tried} (train.batch_size is {recipe.batch_size}, "
        f"train.accumulation_steps {recipe.accumulation_steps}); try train.accumulation_steps={parts} (the same steps, in "
        f"parts) or train.batch_size={fewer}"
    )
