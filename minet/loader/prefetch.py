"""Copy the next batch to the GPU while the current one is processed."""

from collections.abc import Iterator

import torch

from minet.loader.batch import Batch


def prefetch_to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device, in order; unchanged on a CPU or if they are already there.

    Copies run on a separate CUDA stream, from pinned memory without blocking host or device
    (`StreamLoader` reads into such memory for a GPU).
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    pending: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        copy = _start_copy(batch, device, stream)
        if pending is not None:
            yield _synchronized(*pending, device)
        pending = copy
    if pending is not None:
        yield _synchronized(*pending, device)


def _start_copy(
    batch: Batch, device: torch.device, stream: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    """Start to copy a batch; the event marks the end of the copy."""
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    if batch.images.device == device:
        copied.record(torch.cuda.current_stream(device))
        return batch, copied
    with torch.cuda.stream(stream):
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        copied.record(stream)
    return Batch(images, labels, batch.indices), copied


def _synchronized(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Make the device, not the host, wait for the copy of a batch before its first use."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in (batch.images, batch.labels):
        tensor.record_stream(current)
    return batch
