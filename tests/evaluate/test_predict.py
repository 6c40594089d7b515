"""Scoring: what a model says of each image, its planes and its mirror image."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minet.augment.channels import CHANNEL_SETS
from minet.augment.config import AugmentSettings, CompatSettings, scored_augment
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.core.arrays import all_indices
from minet.core.errors import InputError
from minet.evaluate.metrics import worst_mistakes
from minet.evaluate.predict import Predictions, predict
from minet.evaluate.predict import tested_specs as forms_tested  # not a test
from minet.loader.batch import Batch
from minet.models.registry import build
from tests.helpers.sources import ListSource

SPEC = InputSpec(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
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
        predict(network(), source, SPEC, CPU, mistakes=3, flip=flip, progress=shown)
        for source, flip in ((blobs, False), (mirrored, False), (blobs, True))
    )
    assert not np.allclose(plain.probabilities["RGB"], other.probabilities["RGB"], atol=1e-3)
    for name in CHANNEL_SETS:
        mean = (plain.probabilities[name] + other.probabilities[name]) / 2
        assert np.allclose(both.probabilities[name], mean, atol=1e-6), name
        assert np.allclose(both.probabilities[name].sum(axis=1), 1)


def test_predictions_come_in_the_order_of_the_split_whatever_the_batches(blobs: ListSource) -> None:
    whole = predict(network(), blobs, SPEC, CPU, mistakes=3, progress=shown)
    blobs.batch_size = 7
    again = predict(network(), blobs, SPEC, CPU, mistakes=3, progress=shown)
    assert np.array_equal(whole.labels, blobs.labels.numpy())
    for name in CHANNEL_SETS:
        assert np.allclose(whole.probabilities[name], again.probabilities[name], atol=1e-6)
    assert np.array_equal(whole.mistakes, again.mistakes)


# --- channel sets ----------------------------------------------------------------------------

UNEVEN = InputSpec(16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def scored(model: nn.Module, source: ListSource, form: InputSpec, **named: Any) -> Predictions:
    return predict(model, source, form, CPU, mistakes=3, progress=shown, **named)


class Watched(nn.Module):
    """Notes the bytes of each image that a model is given, and how many planes it has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.images: dict[int, list[bytes]] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        seen = self.images.setdefault(inputs.shape[1], [])
        seen += [image.contiguous().numpy().tobytes() for image in inputs]
        logits: Tensor = self.model(inputs)
        return logits


def by_hand(model: nn.Module, source: ListSource, name: str, *, black: bool) -> NDArray[np.float64]:
    """Probabilities of a split whose planes are taken away with numpy alone, in one batch."""
    pixels = source.images.numpy().astype(np.float64) / 255
    planes = list(CHANNEL_SETS[name])
    missing_channels = [plane for plane in range(3) if plane not in planes]
    if black:
        pixels[:, missing_channels] = 0
    mean, std = (np.array(value)[:, None, None] for value in (UNEVEN.mean, UNEVEN.std))
    inputs = (pixels - mean) / std
    inputs = inputs if black else inputs[:, planes]
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(inputs).float()).double()
    return logits.softmax(dim=1).numpy()


def narrow(planes: int) -> nn.Module:
    """A linear model of so many planes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(planes * 16 * 16, 2))


@pytest.mark.parametrize("channels", ["GB", "RB", "R", "B"])
@pytest.mark.parametrize("missing_channels", ["zero", "slice"])
def test_a_model_of_left_out_planes_is_scored_on_its_own_set_alone(
    blobs: ListSource, channels: str, missing_channels: str
) -> None:
    model = narrow(len(channels))
    form = replace(UNEVEN, channels=channels, channel_mode="slice")
    found = scored(model, blobs, form, missing_channels=missing_channels)
    assert list(found.probabilities) == [channels]
    expected = by_hand(model, blobs, channels, black=False)
    assert np.allclose(found.probabilities[channels], expected, atol=1e-6)
    assert np.array_equal(found.trained, found.probabilities[channels])


@pytest.mark.parametrize("channels", ["RGB", "RG", "B"])
def test_a_model_of_squashed_planes_is_scored_on_its_own_set_alone(
    blobs: ListSource, channels: str
) -> None:
    form = replace(UNEVEN, channels=channels, channel_mode="sigmoid")
    for missing_channels in ("zero", "slice"):
        assert forms_tested(form, missing_channels) == {channels: form}
    found = scored(narrow(len(channels)), blobs, form)
    assert list(found.probabilities) == [channels]
    assert found.trained.shape == (40, 2)


@pytest.mark.parametrize("channels", ["RG", "B"])
def test_a_model_that_saw_black_planes_is_scored_on_every_set_with_black_planes(
    blobs: ListSource, channels: str
) -> None:
    """Whatever `missing_channels` says: it has three planes. What it is judged by is its own set."""
    form = replace(UNEVEN, channels=channels)
    black, asked = (
        scored(narrow(3), blobs, form, missing_channels=missing_channels)
        for missing_channels in ("zero", "slice")
    )
    assert list(black.probabilities) == list(CHANNEL_SETS)
    for name in CHANNEL_SETS:
        assert np.array_equal(black.probabilities[name], asked.probabilities[name])
        expected = by_hand(narrow(3), blobs, name, black=True)
        assert np.allclose(black.probabilities[name], expected, atol=1e-6), name
    assert np.array_equal(black.trained, black.probabilities[channels])
    assert not np.allclose(black.trained, black.probabilities["RGB"], atol=1e-3)
    worst = worst_mistakes(black.labels, black.trained, 3)
    assert np.array_equal(black.mistakes, worst)
    pictures = blobs.images.permute(0, 2, 3, 1).numpy()[worst]
    assert np.array_equal(black.pictures, pictures), "they are shown as they are stored"


@pytest.mark.parametrize("arch", ["pool_attention", "dwg_any"])
def test_a_model_of_any_planes_is_scored_on_one_two_and_three_of_them(
    blobs: ListSource, arch: str
) -> None:
    torch.manual_seed(0)
    model = Watched(build(arch, num_classes=2))
    # densenet's last maps are too small for 16 px
    larger = blobs.images[:6].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    source = ListSource(larger, blobs.labels[:6], 4)
    form = replace(UNEVEN, input_px=32)
    found = scored(model, source, form, missing_channels="slice")
    assert {planes: len(seen) for planes, seen in model.images.items()} == {3: 6, 2: 18, 1: 18}
    assert list(found.probabilities) == list(CHANNEL_SETS)
    for name in CHANNEL_SETS:
        expected = by_hand(model, source, name, black=False)
        assert np.allclose(found.probabilities[name], expected, atol=1e-5), name
    assert np.array_equal(found.trained, found.probabilities["RGB"])


def test_a_model_of_a_fixed_number_of_planes_says_so_when_some_are_left_out(
    blobs: ListSource,
) -> None:
    model = build("cnn3", num_classes=2)
    with pytest.raises(InputError, match=r"^cnn3 takes images of 3 channels, not 2$"):
        scored(model, blobs, UNEVEN, missing_channels="slice")
    assert len(scored(model, blobs, UNEVEN).probabilities) == 7


# --- images that are changed although they are scored ----------------------------------------

TRAINED = AugmentSettings(
    flip=0.5,
    crop_scale=(0.3, 1.0),
    crop_ratio=(0.75, 4 / 3),
    rotation_degrees=20.0,
    channel_shuffle=0.5,
    channel_dropout=0.5,
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
)
SANE = CompatSettings(wrap_pixels=False, random_test_crop=False, shuffle_validation=0.0)
CROPPED = SANE.model_copy(update={"random_test_crop": True})


def planned(compat: CompatSettings, shuffle: float, seed: int = 0) -> EpochPlan:
    augment = scored_augment(TRAINED, compat, shuffle=shuffle)
    assert augment is not None
    return plan_epoch(40, 16, augment, seed, 0)


class Blind(nn.Module):
    """A model that does not tell one order of the planes from another, to the last bit."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([inputs.amax(dim=(1, 2, 3)), inputs.amin(dim=(1, 2, 3))], dim=1)


def test_shuffled_planes_change_nothing_for_a_model_that_is_blind_to_them(
    blobs: ListSource,
) -> None:
    plan = planned(SANE, 1.0)
    plain, shuffled = (scored(Blind(), blobs, SPEC, plan=some) for some in (None, plan))
    for name in CHANNEL_SETS:
        assert np.array_equal(plain.probabilities[name], shuffled.probabilities[name]), name


def test_shuffled_planes_change_what_a_model_says_that_tells_them_apart(blobs: ListSource) -> None:
    """To what it says of the images with their planes in that order; the gallery stays."""
    plan = planned(SANE, 1.0)
    assert plan.channel_order is not None
    plain, shuffled = (scored(network(), blobs, SPEC, plan=some) for some in (None, plan))
    moved = (plan.channel_order != np.arange(3)).any(axis=1)
    differs = np.abs(plain.trained - shuffled.trained).max(axis=1) > 1e-4
    assert np.array_equal(differs, moved)
    rows = torch.arange(40)[:, None]
    reordered = ListSource(
        blobs.images[rows, torch.from_numpy(plan.channel_order)], blobs.labels, 8
    )
    expected = scored(network(), reordered, SPEC)
    assert np.allclose(shuffled.trained, expected.trained, atol=1e-6)
    pictures = blobs.images.permute(0, 2, 3, 1).numpy()[shuffled.mistakes]
    assert np.array_equal(shuffled.pictures, pictures)


@pytest.mark.parametrize("compat", [SANE, CROPPED], ids=["shuffled", "cropped and shuffled"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_test_image_is_the_same_bytes_for_any_batch_size(
    blobs: ListSource, compat: CompatSettings, *, flip: bool
) -> None:
    def seen(batch_size: int) -> list[bytes]:
        blobs.batch_size = batch_size
        model = Watched(network())
        scored(model, blobs, SPEC, flip=flip, plan=planned(compat, 0.5))
        return sorted(model.images[3])

    whole = seen(40)
    assert len(whole) == 40 * 7 * (2 if flip else 1)
    for batch_size in (1, 7, 8, 39):
        assert seen(batch_size) == whole, batch_size


def test_test_images_are_cropped_turned_and_mirrored_only_if_that_is_asked_for(
    blobs: ListSource,
) -> None:
    """As training images are, without what else becomes of those."""
    plan = planned(CROPPED, 0.0)
    assert plan.channel_order is plan.channel_mask is plan.mix_params is None
    draws = AugmentParams.from_plan(plan, all_indices(40), CPU)
    assert draws.boxes is not None
    assert draws.flips is not None
    assert draws.degrees is not None
    model, plain = Watched(network()), Watched(network())
    scored(model, blobs, SPEC, plan=plan)
    scored(plain, blobs, SPEC)
    ones = (to_input(blobs.images, SPEC.to(CPU), some) for some in (draws, None))
    cropped, whole = ([image.contiguous().numpy().tobytes() for image in some] for some in ones)
    assert set(cropped) <= set(model.images[3])
    assert not set(cropped) & set(plain.images[3])
    assert set(whole) <= set(plain.images[3])
    assert scored_augment(TRAINED, SANE, shuffle=0.0) is None
