"""Predictions of a trained model: every channel set in one pass over the test split."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minet.augment.channels import tested_sets
from minet.augment.plan import EpochPlan
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.core.arrays import Pixels, all_indices
from minet.evaluate.metrics import Labels, Probabilities, worst_mistakes
from minet.loader.batch import Batch, Source


@dataclass(frozen=True)
class Predictions:
    """Predictions for a split, in the split's order."""

    labels: Labels  # (N,)
    probabilities: dict[str, Probabilities]  # channel set -> (N, K)
    channels: str  # the channel set that the model was trained on
    channel_mode: str  # how the channels outside a set were treated
    mistakes: NDArray[np.int64]  # (M,) indices of the worst mistakes on `channels`
    pictures: Pixels  # (M, H, W, 3) their pixels as stored

    @property
    def trained(self) -> Probabilities:
        """Probabilities (N, K) on the channel set that the model was trained on."""
        return self.probabilities[self.channels]


def tested_specs(spec: InputSpec, missing_channels: str) -> dict[str, InputSpec]:
    """Return the input spec of each channel set that a model can be tested on."""
    sets = tested_sets(spec.channels, spec.channel_mode, missing_channels)
    return {
        name: replace(spec, channels=name, channel_mode=channel_mode)
        for name, channel_mode in sets.items()
    }


@torch.inference_mode()
def predict(
    model: nn.Module,
    source: Source,
    spec: InputSpec,
    device: torch.device,
    *,
    mistakes: int,
    flip: bool = False,
    missing_channels: str = "zero",
    plan: EpochPlan | None = None,
    progress: Callable[[Iterator[Batch], int], Iterable[Batch]],
) -> Predictions:
    """Run a model over a split once; each batch is predicted with every spec of `tested_specs`.

    `flip` averages the probabilities of each image and its mirror image; `plan` augments the
    images (`minet.augment.config.eval_augment`).
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    specs = tested_specs(spec, missing_channels)
    device_specs = {name: tested.to(device) for name, tested in specs.items()}
    labels: list[Labels] = []
    outputs: dict[str, list[Probabilities]] = {name: [] for name in specs}
    gallery = _Gallery(mistakes)
    for batch in progress(source.batches(all_indices(source.count)), source.count):
        images = batch.images.to(device)
        params = None if plan is None else AugmentParams.from_plan(plan, batch.indices, device)
        for name, batches in outputs.items():
            inputs = to_input(images, device_specs[name], params)
            batches.append(_probabilities(model, inputs, flip=flip).cpu().numpy())
        labels.append(batch.labels.cpu().numpy())
        gallery.add(batch, outputs[spec.channels][-1])
    all_labels = np.concatenate(labels)
    probabilities = {name: np.concatenate(batches) for name, batches in outputs.items()}
    worst = worst_mistakes(all_labels, probabilities[spec.channels], mistakes)
    return Predictions(
        labels=all_labels,
        probabilities=probabilities,
        channels=spec.channels,
        channel_mode=specs[spec.channels].channel_mode,
        mistakes=worst,
        pictures=gallery.pictures(worst),
    )


def _probabilities(model: nn.Module, inputs: Tensor, *, flip: bool) -> Tensor:
    """Return the class probabilities (N, K), averaged with the mirror images' if `flip`."""
    probabilities: Tensor = model(inputs).double().softmax(dim=1)
    if flip:
        probabilities = (probabilities + model(inputs.flip(-1)).double().softmax(dim=1)) / 2
    return probabilities


class _Gallery:
    """Pixels of the worst mistakes so far; memory does not grow with the split."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._worst: list[tuple[float, int, Pixels]] = []  # (-confidence, index, pixels)
        self._image_size = 1

    def add(self, batch: Batch, probabilities: Probabilities) -> None:
        pixels: Tensor = batch.images.permute(0, 2, 3, 1)
        self._image_size = pixels.shape[1]
        for row in worst_mistakes(batch.labels.cpu().numpy(), probabilities, self._limit):
            confidence = float(probabilities[row].max())
            picture = pixels[int(row)].cpu().numpy().copy()
            self._worst.append((-confidence, int(batch.indices[row]), picture))
        self._worst = sorted(self._worst, key=lambda entry: entry[:2])[: self._limit]

    def pictures(self, indices: NDArray[np.int64]) -> Pixels:
        """Return the pixels (M, H, W, 3) of some of the images that were added."""
        pixels = {index: picture for _, index, picture in self._worst}
        shape = (len(indices), self._image_size, self._image_size, 3)
        return np.array([pixels[int(index)] for index in indices], np.uint8).reshape(shape)
