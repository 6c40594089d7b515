"""Scoring: what a model says of each image, its planes and its mirror image."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from conftest import ListSource
from torch import nn

from minet.augment import InputForm
from minet.batch import Batch
from minet.channels import CHANNEL_SETS
from minet.evaluation import predict

FORM = InputForm(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def shown(batches: Iterator[Batch], _: int) -> Iterable[Batch]:
    return batches


def network() -> nn.Module:
    """A model that tells left from right."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))


def test_a_flipped_score_is_the_mean_of_an_image_and_its_mirror_image(blobs: ListSource) -> None:
    mirrored = ListSource(blobs.images.flip(-1), blobs.labels, 8)
    plain, other, both = (
        predict(network(), source, FORM, CPU, mistakes=3, flip=flip, progress=shown)
        for source, flip in ((blobs, False), (mirrored, False), (blobs, True))
    )
    assert not np.allclose(plain.probabilities["RGB"], other.probabilities["RGB"], atol=1e-3)
    for name in CHANNEL_SETS:
        mean = (plain.probabilities[name] + other.probabilities[name]) / 2
        assert np.allclose(both.probabilities[name], mean, atol=1e-6), name
        assert np.allclose(both.probabilities[name].sum(axis=1), 1)


def test_predictions_come_in_the_order_of_the_split_whatever_the_batches(blobs: ListSource) -> None:
    whole = predict(network(), blobs, FORM, CPU, mistakes=3, progress=shown)
    blobs.batch_size = 7
    again = predict(network(), blobs, FORM, CPU, mistakes=3, progress=shown)
    assert np.array_equal(whole.labels, blobs.labels.numpy())
    for name in CHANNEL_SETS:
        assert np.allclose(whole.probabilities[name], again.probabilities[name], atol=1e-6)
    assert np.array_equal(whole.mistakes, again.mistakes)
