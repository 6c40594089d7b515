"""The inputs of training steps: the same bytes however a split is stored, read and sharded.

Threads, batch size, ranks, streaming or resident, and the step at which a run resumes do not change
an image's pixels, its augmentation, its partner in mixup or CutMix, or its position in the order.
"""

from dataclasses import replace
from functools import cache
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from minet.augment.config import AugmentSettings
from minet.augment.mixup import mix
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import AugmentParams, DeviceInputSpec, InputSpec, to_input
from minet.beton.config import BetonRunSettings
from minet.beton.writer import write_beton
from minet.core.arrays import batched, ceil_div
from minet.core.errors import InputError
from minet.core.files import digest, write_json
from minet.loader.batch import Batch
from minet.loader.loader import BetonLoader
from minet.loader.sharding import BatchSharder
from minet.loader.stream import StreamLoader
from tests.helpers.sources import open_one

COUNT, IMAGE_SIZE, INPUT_PX = 90, 24, 16
PLAIN: dict[str, Any] = {
    "flip": 0.5, "crop_scale": (0.3, 1), "crop_ratio": (0.75, 1.33), "rotation_degrees": 20,
    "channel_shuffle": 0.5, "channel_dropout": 0.3,
}  # fmt: skip
AUGMENT = AugmentSettings(**PLAIN, mixup_alpha=0, cutmix_alpha=0)
MIXED = AugmentSettings(**PLAIN, mixup_alpha=0.5, cutmix_alpha=1)
CPU = torch.device("cpu")
ALL = InputSpec(INPUT_PX, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SPEC = ALL.to(CPU)
ALL_CHANNELS = {"channel_shuffle": 0, "channel_dropout": 0}
# channels that a model sees -> input spec and augmentation
INPUTS = {
    "all": (SPEC, AUGMENT),
    "one masked, wrapped": (replace(ALL, channels="RB", wrap_pixels=True).to(CPU), AUGMENT),
    "two sliced": (
        replace(ALL, channels="GB", channel_mode="slice").to(CPU),
        AUGMENT.model_copy(update=ALL_CHANNELS),
    ),
}

storages = st.sampled_from(["raw", "jpg"])
caches = st.sampled_from(["stream", "resident"])
threads, ranks = st.sampled_from([1, 2, 3]), st.integers(1, 4)
batch_sizes = st.sampled_from([7, 64])


@pytest.fixture(scope="module")
def betons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return betons of the same images, one for each kind of storage."""
    folder = tmp_path_factory.mktemp("exact")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        file = folder / f"{number}.png"
        grain = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        grain.resize((40, 30)).save(file)
        xxh3 = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(number % 9), "xxh3": xxh3})
    paths = {}
    for storage in ("raw", "jpg"):
        choice = {"resize_px": 26, "crop_px": IMAGE_SIZE, "storage": storage, "jpeg_quality": 90}
        run = BetonRunSettings(root=str(folder), **choice)
        path = folder / f"{storage}.beton"
        record = write_beton(path, rows, run, workers=1, progress=lambda items, _: items)
        write_json(path.with_suffix(".json"), record)
        paths[storage] = path
    return paths


Samples = list[tuple[int, int, bytes, bytes]]  # index, label, stored pixels, model input


def read_samples(
    loader: BetonLoader, plan: EpochPlan, order: NDArray[np.int64], spec: DeviceInputSpec
) -> list[Samples]:
    """Read an order and augment each batch as training does; one list per batch."""
    params, done, batches = AugmentParams.from_plan(plan, order, CPU), 0, []
    for batch in loader.batches(order):
        inputs = to_input(batch.images, spec, params.narrow(done, len(batch.indices)))
        done += len(batch.indices)
        batches.append(_samples(batch, inputs))
    return batches


def _samples(batch: Batch, inputs: torch.Tensor) -> Samples:
    indices, labels = batch.indices.tolist(), batch.labels.tolist()
    stored, augmented = ([image.numpy().tobytes() for image in x] for x in (batch.images, inputs))
    return list(zip(indices, labels, stored, augmented, strict=True))


@pytest.fixture(scope="module")
def reference(betons: dict[str, Path]) -> dict[tuple[str, str, int], Samples]:
    """Return each epoch, streamed by one thread as one batch."""
    epochs = {}
    for storage, path in betons.items():
        loader = StreamLoader(path, batch_size=COUNT, workers=1)
        for (name, (spec, augment)), epoch in product(INPUTS.items(), (0, 3)):
            plan = plan_epoch(COUNT, IMAGE_SIZE, augment, 5, epoch)
            (epochs[storage, name, epoch],) = read_samples(loader, plan, plan.order, spec)
    return epochs


@settings(deadline=None, max_examples=60)
@given(
    storage=storages,
    name=st.sampled_from(list(INPUTS)),
    cache=caches,
    threads=threads,
    batch_size=batch_sizes,
    ranks=ranks,
    epoch=st.sampled_from([0, 3]),
    data=st.data(),
)
def test_an_epoch_is_the_same_however_it_is_read_sharded_and_resumed(
    *,
    betons: dict[str, Path],
    reference: dict[tuple[str, str, int], Samples],
    storage: str,
    name: str,
    cache: Any,
    threads: int,
    batch_size: int,
    ranks: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    """Each rank reads its part of every global batch; together they are the epoch, in order."""
    steps = ceil_div(COUNT, batch_size)
    resumed_at = data.draw(st.integers(0, steps - 1), label="resumed at step")
    spec, augment = INPUTS[name]
    plan = plan_epoch(COUNT, IMAGE_SIZE, augment, 5, epoch)
    remaining = plan.order[resumed_at * batch_size :]
    by_rank = []
    for rank in range(ranks):
        sharder = BatchSharder(batch_size, rank, ranks)
        loader = open_one(betons[storage], batch_size=sharder.size, workers=threads, cache=cache)
        by_rank.append(read_samples(loader, plan, sharder.order(remaining), spec))
    samples: Samples = []
    for step in range(steps - resumed_at):
        parts = [batches[step] if step < len(batches) else [] for batches in by_rank]
        global_batch: Samples = [None] * sum(map(len, parts))  # type: ignore[list-item]
        for rank, part in enumerate(parts):
            global_batch[rank::ranks] = part
        samples += global_batch
    assert samples == reference[storage, name, epoch][resumed_at * batch_size :]


Mixed = dict[int, tuple[int, int, bytes, float]]  # image: two labels, mixed input, lambda


@cache
def mixed_by_hand(path: Path, batch_size: int) -> Mixed:
    """Mix each image of an epoch with the next one in its batch, one by one."""
    plan = plan_epoch(COUNT, IMAGE_SIZE, MIXED, 5, 1)
    (batch,) = StreamLoader(path, batch_size=COUNT, workers=1).batches(np.arange(COUNT))
    inputs = to_input(batch.images, SPEC, AugmentParams.from_plan(plan, batch.indices, CPU))
    assert plan.mix_params is not None
    mixed = {}
    for indices in batched(plan.order, batch_size):
        cycle = indices.tolist()
        for image, partner in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            params = torch.from_numpy(plan.mix_params[image : image + 1])
            one, weight = mix(inputs[image : image + 1], inputs[partner : partner + 1], params)
            labels = batch.labels[[image, partner]].tolist()
            mixed[image] = (*labels, one[0].numpy().tobytes(), float(weight))
    return mixed


@settings(deadline=None, max_examples=16)
@given(storage=storages, cache=caches, batch_size=batch_sizes, ranks=ranks, data=st.data())
def test_an_image_has_the_same_partner_and_mixed_bytes_on_any_number_of_ranks(
    *,
    betons: dict[str, Path],
    storage: str,
    cache: Any,
    batch_size: int,
    ranks: int,
    data: st.DataObject,
) -> None:
    """Ranks also read the partners of their images; a single process has them in its batch."""
    plan = plan_epoch(COUNT, IMAGE_SIZE, MIXED, 5, 1)
    assert plan.mix_params is not None
    resumed_at = data.draw(st.integers(0, ceil_div(COUNT, batch_size) - 1), label="resumed at step")
    remaining = plan.order[resumed_at * batch_size :]
    mixed: Mixed = {}
    for rank in range(ranks):
        sharder = BatchSharder(batch_size, rank, ranks, paired=ranks > 1)
        loader = open_one(betons[storage], batch_size=sharder.size, workers=2, cache=cache)
        order = sharder.order(remaining)
        params, done = AugmentParams.from_plan(plan, order, CPU), 0
        for batch in loader.batches(order):
            part = params.narrow(done, len(batch.indices))
            done += len(batch.indices)
            inputs = to_input(batch.images, SPEC, part)
            if ranks > 1:
                inputs, partners = inputs.chunk(2)
                labels, other = batch.labels.chunk(2)
            else:
                partners, labels = inputs.roll(-1, dims=0), batch.labels
                other = labels.roll(-1)
            assert part.mix_params is not None
            ones, weights = mix(inputs, partners, part.mix_params[: len(inputs)])
            for row, image in enumerate(batch.indices[: len(inputs)].tolist()):
                assert image not in mixed
                both = (int(labels[row]), int(other[row]))
                mixed[image] = (*both, ones[row].numpy().tobytes(), float(weights[row]))
    expected = mixed_by_hand(betons[storage], batch_size)
    assert mixed == {image: expected[image] for image in remaining.tolist()}


@given(st.integers(0, 200), st.integers(1, 64), st.integers(1, 9))
def test_ranks_split_every_global_batch_evenly(count: int, batch_size: int, ranks: int) -> None:
    batch_size = max(batch_size, ranks)
    order = np.random.default_rng(0).permutation(count)
    sharders = [BatchSharder(batch_size, rank, ranks) for rank in range(ranks)]
    by_rank = [list(batched(sharder.order(order), sharder.size)) for sharder in sharders]
    for step, global_batch in enumerate(batched(order, batch_size)):
        parts = [batches[step].tolist() if step < len(batches) else [] for batches in by_rank]
        assert sorted(chain.from_iterable(parts)) == sorted(global_batch.tolist())
        assert all(more - fewer in (0, 1) for more, fewer in pairwise(map(len, parts)))


def test_more_ranks_than_images_in_a_batch_are_rejected() -> None:
    with pytest.raises(InputError, match=r"train.batch_size is 3; 4 processes cannot share it"):
        BatchSharder(3, 0, 4)


def test_epochs_differ(reference: dict[tuple[str, str, int], Samples]) -> None:
    """The tests above would pass with a plan that never changes."""
    first, second = reference["raw", "all", 0], reference["raw", "all", 3]
    assert [one[0] for one in first] != [one[0] for one in second]
    by_index = {one[0]: one[3] for one in second}
    assert sum(by_index[one[0]] == one[3] for one in first) < 5
