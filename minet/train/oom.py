"""Turn running out of memory into an InputError that suggests a smaller batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from minet.core.arrays import ceil_div
from minet.core.errors import InputError
from minet.train.config import TrainSettings

# in messages of torch's RuntimeErrors
_OOM_MESSAGES = (
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
    """Raise InputError for an out-of-memory error: what was tried, and what to try instead."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
        raise InputError(_advice(recipe, world_size, name)) from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(message in str(error) for message in _OOM_MESSAGES)


def _advice(recipe: TrainSettings, world_size: int, device_name: str) -> str:
    images = ceil_div(recipe.batch_size, world_size * recipe.accumulation_steps)
    tried = f"{images} image{'s' if images > 1 else ''} of {recipe.input_px} px at once"
    if images == 1:
        return (
            f"{device_name} does not have enough memory for {tried}; "
            "try a smaller train.input_px or model"
        )
    steps = min(2 * recipe.accumulation_steps, recipe.batch_size)
    smaller = max(world_size, recipe.accumulation_steps, recipe.batch_size // 2)
    return (
        f"{device_name} does not have enough memory for {tried} "
        f"(train.batch_size is {recipe.batch_size}, "
        f"train.accumulation_steps {recipe.accumulation_steps}); "
        f"try train.accumulation_steps={steps} (the same batch in smaller micro-batches) or "
        f"train.batch_size={smaller}"
    )
