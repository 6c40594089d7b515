"""Reading betons with FFCV: in an order that the caller gives, whole, and never hanging."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

_THREADS = torch.get_num_threads()

# FFCV's import leaves torch with one thread, on which training takes half as long again
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.transforms import ToTensor, ToTorchImage

torch.set_num_threads(_THREADS)

from minet.batch import Batch, IndexArray, split_order
from minet.errors import InputError
from minet.results import read_json


class BetonLoader:
    """Batches of one beton; compiles FFCV's pipeline once, some seconds, on construction.

    The beton is checked against its sidecar (`<split>.json` beside it): InputError if it is not
    the file that was written.
    """

    def __init__(self, path: Path, *, batch_size: int, workers: int) -> None:
        """Open a beton for batches of `batch_size` images, decoded by `workers` threads."""
        self.record = read_json(path.with_suffix(".json"))
        _check(path, self.record)
        self.count: int = self.record["count"]
        self.batch_size = batch_size
        threads = torch.get_num_threads()
        most_threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        pipelines = {
            "image": [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor()],
        }
        self._loader = Loader(
            str(path),
            batch_size=min(batch_size, self.count),
            num_workers=min(workers, most_threads),
            pipelines=pipelines,
            drop_last=False,
            seed=0,  # unused: every order is given
        )
        torch.set_num_threads(threads)  # FFCV sets torch's to its own, which changes sums' bytes

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` (places in the split) in batches; the last may be smaller.

        Close the iterator (or let it go) to stop early. RuntimeError if the reading thread died.
        """
        threads = torch.get_num_threads()
        reader = _Reader(self._loader, order.astype(np.uint64))
        try:
            for indices, (images, labels) in zip(
                split_order(order, self._loader.batch_size), reader, strict=True
            ):
                torch.set_num_threads(threads)
                yield Batch(images, labels[:, 0].clone(), indices)
        finally:
            reader.stop()
            torch.set_num_threads(threads)


class _Reader(EpochIterator):  # type: ignore[misc]
    """FFCV's reading thread, with its errors passed on and its end reached when abandoned.

    FFCV's own catches StopIteration alone: on any other error the taker waits for ever
    (libffcv/ffcv#372), and an abandoned thread never ends (#345).
    """

    failure: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - raised again in the taker's thread
            self.failure = error
            self.output_queue.put(None)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except StopIteration:
            if self.failure is not None:
                raise RuntimeError(f"reading a beton failed: {self.failure}") from self.failure
            raise

    def stop(self) -> None:
        """End the thread, taking what it still wants to hand over."""
        self.terminate_event.set()
        self.iter_ixes = iter(())  # the event alone is not heeded as long as batches are taken
        while self.is_alive():
            while not self.output_queue.empty():
                self.output_queue.get_nowait()
            self.join(timeout=0.05)
        self.close()


def _check(path: Path, record: dict[str, Any]) -> None:
    """Cheap signs that a beton is the one its sidecar describes."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; `dvc repro` makes it")
    size_bytes = path.stat().st_size
    if size_bytes != record["bytes"]:
        raise InputError(
            f"{path}: {size_bytes} bytes, but its sidecar says {record['bytes']}: truncated or "
            "another file; remove both and run `dvc repro`"
        )
