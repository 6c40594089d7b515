"""Batches on their way to a GPU: the next one travels while this one is worked with."""

from collections.abc import Iterator

import torch

from minet.loader.batch import Batch


def prefetch_to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Give batches on a device, in their order; those of a CPU or already there as they are.

    The copies run on a stream of their own, out of page-locked memory without a wait for either
    side (`minet.loader.loader` reads into such memory for a GPU).
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    coming: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        sent = _sent(batch, device, stream)
        if coming is not None:
            yield _received(*coming, device)
        coming = sent
    if coming is not None:
        yield _received(*coming, device)


def _sent(
    batch: Batch, device: torch.device, stream: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    """Begin to copy a batch; the event tells when it is there."""
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    if batch.images.device == device:
        arrived.record(torch.cuda.current_stream(device))
        return batch, arrived
    with torch.cuda.stream(stream):
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        arrived.record(stream)
    return Batch(images, labels, batch.indices), arrived


def _received(batch: Batch, arrived: torch.cuda.Event, device: torch.device) -> Batch:
    """Have the device wait for a batch before it is used; the program goes on."""
    current = torch.cuda.current_stream(device)
    current.wait_event(arrived)
    for tensor in (batch.images, batch.labels):
        tensor.record_stream(current)
    return batch
