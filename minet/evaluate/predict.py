"""Scoring a trained model: every channel set in one pass over the test split."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minet.augment.channels import tested_sets
from minet.augment.plan import EpochPlan
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.core.arrays import all_indices
from minet.evaluate.metrics import Labels, Probabilities, worst_mistakes
from minet.loader.batch import Batch, Source


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split, in the split's order."""

    labels: Labels  # (N,)
    probabilities: dict[str, Probabilities]  # channel set -> (N, K)
    own: Probabilities  # (N, K) of the channel set that the model was trained on
    mistakes: NDArray[np.int64]  # (M,) places of the worst mistakes on that, the worst first
    pictures: NDArray[np.uint8]  # (M, H, W, 3) their pixels as stored


def tested_specs(form: InputSpec, missing_channels: str) -> dict[str, InputSpec]:
    """Give the channel sets that a model can be tested on, and how each is given to it."""
    sets = tested_sets(form.channels, form.channel_mode, missing_channels)
    return {
        name: replace(form, channels=name, channel_mode=channel_mode)
        for name, channel_mode in sets.items()
    }


@torch.inference_mode()
def predict(
    model: nn.Module,
    source: Source,
    form: InputSpec,
    device: torch.device,
    *,
    mistakes: int,
    flip: bool = False,
    missing_channels: str = "zero",
    plan: EpochPlan | None = None,
    progress: Callable[[Iterator[Batch], int], Iterable[Batch]],
) -> Predictions:
    """Run a model over a split once, with each set of `tested_specs` in turn on every batch.

    `flip` takes the mean with the probabilities of the mirror images; `plan` says what is done to
    each image, if anything (`minet.train.config.scored_augment`).
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    placed = {name: form.to(device) for name, form in tested_specs(form, missing_channels).items()}
    labels: list[Labels] = []
    outputs: dict[str, list[Probabilities]] = {name: [] for name in placed}
    gallery = _Gallery(mistakes)
    for batch in progress(source.batches(all_indices(source.count)), source.count):
        images = batch.images.to(device)
        draws = None if plan is None else AugmentParams.from_plan(plan, batch.indices, device)
        for name, found in outputs.items():
            inputs = to_input(images, placed[name], draws)
            shares = model(inputs).double().softmax(dim=1)
            if flip:
                shares = (shares + model(inputs.flip(-1)).double().softmax(dim=1)) / 2
            found.append(shares.cpu().numpy())
        labels.append(batch.labels.cpu().numpy())
        gallery.add(batch, outputs[form.channels][-1])
    all_labels = np.concatenate(labels)
    probabilities = {name: np.concatenate(found) for name, found in outputs.items()}
    own = probabilities[form.channels]
    places = worst_mistakes(all_labels, own, mistakes)
    return Predictions(all_labels, probabilities, own, places, gallery.pictures(places))


class _Gallery:
    """Pixels of the worst mistakes so far; memory does not grow with the split."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[tuple[float, int, NDArray[np.uint8]]] = []
        self._side_px = 1

    def add(self, batch: Batch, probabilities: Probabilities) -> None:
        pixels: Tensor = batch.images.permute(0, 2, 3, 1)
        self._side_px = pixels.shape[1]
        for place in worst_mistakes(batch.labels.cpu().numpy(), probabilities, self._most):
            confidence = float(probabilities[place].max())
            picture = pixels[int(place)].cpu().numpy().copy()
            self._found.append((-confidence, int(batch.indices[place]), picture))
        self._found = sorted(self._found, key=lambda found: found[:2])[: self._most]

    def pictures(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        pixels = {place: picture for _, place, picture in self._found}
        shape = (len(places), self._side_px, self._side_px, 3)
        return np.array([pixels[int(place)] for place in places], np.uint8).reshape(shape)
