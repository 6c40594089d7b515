"""What a training step is given: the same bytes, however a split is stored, read, cut and shared.

Threads, batch size, ranks, streaming or resident, and where a run is resumed change nothing of an
image's pixels, its augmentation, what it is mixed with, or its place in the order.
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
from minet.core.arrays import batched
from minet.core.errors import InputError
from minet.core.files import digest, write_json
from minet.loader.batch import Batch
from minet.loader.loader import BetonLoader
from minet.loader.sharding import BatchSharder
from tests.helpers.sources import open_one

COUNT, IMAGE_SIZE, INPUT_PX = 90, 24, 16
PLAIN: dict[str, Any] = {
    "flip": 0.5, "crop_scale": (0.3, 1), "crop_ratio": (0.75, 1.33), "rotation_degrees": 20,
    "channel_shuffle": 0.5, "channel_dropout": 0.3,
}  # fmt: skip
AUGMENT = AugmentSettings(**PLAIN, mixup_alpha=0, cutmix_alpha=0)
MIXED = AugmentSettings(**PLAIN, mixup_alpha=0.5, cutmix_alpha=1)
CPU = torch.device("cpu")
WHOLE = InputSpec(INPUT_PX, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SPEC = WHOLE.to(CPU)
ALL_PLANES = {"channel_shuffle": 0, "channel_dropout": 0}
# planes that a model is given -> how, and what else is done to an image
SHOWN = {
    "all": (SPEC, AUGMENT),
    "one black, wrapped": (replace(WHOLE, channels="RB", wrap_pixels=True).to(CPU), AUGMENT),
    "two": (
        replace(WHOLE, channels="GB", channel_mode="slice").to(CPU),
        AUGMENT.model_copy(update=ALL_PLANES),
    ),
}

storages = st.sampled_from(["raw", "jpg"])
caches = st.sampled_from(["stream", "resident"])
threads, ranks = st.sampled_from([1, 2, 3]), st.integers(1, 4)
batch_sizes = st.sampled_from([7, 64])


@pytest.fixture(scope="module")
def betons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the same images in both kinds of storage."""
    folder = tmp_path_factory.mktemp("exact")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        file = folder / f"{number}.png"
        grain = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        grain.resize((40, 30)).save(file)
        known = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(number % 9), "xxh3": known})
    paths = {}
    for storage in ("raw", "jpg"):
        choice = {"resize_px": 26, "crop_px": IMAGE_SIZE, "storage": storage, "jpeg_quality": 90}
        run = BetonRunSettings(root=str(folder), **choice)
        path = folder / f"{storage}.beton"
        record = write_beton(path, rows, run, workers=1, progress=lambda items, _: items)
        write_json(path.with_suffix(".json"), record)
        paths[storage] = path
    return paths


Seen = list[tuple[int, int, bytes, bytes]]  # place, label, pixels, what the model sees


def see(
    loader: BetonLoader, plan: EpochPlan, order: NDArray[np.int64], form: DeviceInputSpec
) -> list[Seen]:
    """Read an order and augment each batch, as training does; a list of images a batch."""
    draws, done, batches = AugmentParams.from_plan(plan, order, CPU), 0, []
    for batch in loader.batches(order):
        inputs = to_input(batch.images, form, draws.narrow(done, len(batch.indices)))
        done += len(batch.indices)
        batches.append(_seen(batch, inputs))
    return batches


def _seen(batch: Batch, inputs: torch.Tensor) -> Seen:
    places, labels = batch.indices.tolist(), batch.labels.tolist()
    stored, seen = ([image.numpy().tobytes() for image in x] for x in (batch.images, inputs))
    return list(zip(places, labels, stored, seen, strict=True))


@pytest.fixture(scope="module")
def reference(betons: dict[str, Path]) -> dict[tuple[str, str, int], Seen]:
    """Give each epoch as one thread streams it in one batch."""
    found = {}
    for storage, path in betons.items():
        loader = BetonLoader(path, batch_size=COUNT, workers=1)
        for (shown, (form, augment)), epoch in product(SHOWN.items(), (0, 3)):
            plan = plan_epoch(COUNT, IMAGE_SIZE, augment, 5, epoch)
            (found[storage, shown, epoch],) = see(loader, plan, plan.order, form)
    return found


@settings(deadline=None, max_examples=60)
@given(
    storage=storages,
    shown=st.sampled_from(list(SHOWN)),
    cache=caches,
    threads=threads,
    batch_size=batch_sizes,
    ranks=ranks,
    epoch=st.sampled_from([0, 3]),
    data=st.data(),
)
def test_an_epoch_is_the_same_however_it_is_read_shared_and_resumed(
    *,
    betons: dict[str, Path],
    reference: dict[tuple[str, str, int], Seen],
    storage: str,
    shown: str,
    cache: Any,
    threads: int,
    batch_size: int,
    ranks: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    """Each rank reads its share of every global batch; together they are the epoch, in order."""
    steps = -(-COUNT // batch_size)
    resumed_at = data.draw(st.integers(0, steps - 1), label="resumed at step")
    form, augment = SHOWN[shown]
    plan = plan_epoch(COUNT, IMAGE_SIZE, augment, 5, epoch)
    left = plan.order[resumed_at * batch_size :]
    shares = []
    for rank in range(ranks):
        share = BatchSharder(batch_size, rank, ranks)
        loader = open_one(betons[storage], batch_size=share.size, workers=threads, cache=cache)
        shares.append(see(loader, plan, share.order(left), form))
    seen: Seen = []
    for step in range(steps - resumed_at):
        parts = [share[step] if step < len(share) else [] for share in shares]
        whole: Seen = [None] * sum(map(len, parts))  # type: ignore[list-item]
        for rank, part in enumerate(parts):
            whole[rank::ranks] = part
        seen += whole
    assert seen == reference[storage, shown, epoch][resumed_at * batch_size :]


Mixed = dict[int, tuple[int, int, bytes, float]]  # image: its label, its partner's, input, share


@cache
def mixed_by_hand(path: Path, batch_size: int) -> Mixed:
    """Mix each image of an epoch with the one that follows it in its batch, one by one."""
    plan = plan_epoch(COUNT, IMAGE_SIZE, MIXED, 5, 1)
    (batch,) = BetonLoader(path, batch_size=COUNT, workers=1).batches(np.arange(COUNT))
    inputs = to_input(batch.images, SPEC, AugmentParams.from_plan(plan, batch.indices, CPU))
    assert plan.mix_params is not None
    found = {}
    for whole in batched(plan.order, batch_size):
        cycle = whole.tolist()
        for image, partner in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            draw = torch.from_numpy(plan.mix_params[image : image + 1])
            one, share = mix(inputs[image : image + 1], inputs[partner : partner + 1], draw)
            labels = batch.labels[[image, partner]].tolist()
            found[image] = (*labels, one[0].numpy().tobytes(), float(share))
    return found


@settings(deadline=None, max_examples=16)
@given(storage=storages, cache=caches, batch_size=batch_sizes, ranks=ranks, data=st.data())
def test_an_image_is_mixed_with_the_same_one_by_the_same_bytes_whoever_reads_it(
    *,
    betons: dict[str, Path],
    storage: str,
    cache: Any,
    batch_size: int,
    ranks: int,
    data: st.DataObject,
) -> None:
    """Ranks read the partners of their images too; one process alone has them in its batch."""
    plan = plan_epoch(COUNT, IMAGE_SIZE, MIXED, 5, 1)
    assert plan.mix_params is not None
    resumed_at = data.draw(st.integers(0, -(-COUNT // batch_size) - 1), label="resumed at step")
    left = plan.order[resumed_at * batch_size :]
    found: Mixed = {}
    for rank in range(ranks):
        share = BatchSharder(batch_size, rank, ranks, paired=ranks > 1)
        loader = open_one(betons[storage], batch_size=share.size, workers=2, cache=cache)
        order = share.order(left)
        draws, done = AugmentParams.from_plan(plan, order, CPU), 0
        for batch in loader.batches(order):
            part = draws.narrow(done, len(batch.indices))
            done += len(batch.indices)
            inputs = to_input(batch.images, SPEC, part)
            if ranks > 1:
                inputs, partners = inputs.chunk(2)
                labels, other = batch.labels.chunk(2)
            else:
                partners, labels = inputs.roll(-1, dims=0), batch.labels
                other = labels.roll(-1)
            assert part.mix_params is not None
            ones, shares = mix(inputs, partners, part.mix_params[: len(inputs)])
            for row, image in enumerate(batch.indices[: len(inputs)].tolist()):
                assert image not in found
                both = (int(labels[row]), int(other[row]))
                found[image] = (*both, ones[row].numpy().tobytes(), float(shares[row]))
    expected = mixed_by_hand(betons[storage], batch_size)
    assert found == {image: expected[image] for image in left.tolist()}


@given(st.integers(0, 200), st.integers(1, 64), st.integers(1, 9))
def test_ranks_share_every_global_batch_evenly(count: int, batch_size: int, ranks: int) -> None:
    batch_size = max(batch_size, ranks)
    order = np.random.default_rng(0).permutation(count)
    shares = [BatchSharder(batch_size, rank, ranks) for rank in range(ranks)]
    cut = [list(batched(share.order(order), share.size)) for share in shares]
    for number, whole in enumerate(batched(order, batch_size)):
        parts = [parts[number].tolist() if number < len(parts) else [] for parts in cut]
        assert sorted(chain.from_iterable(parts)) == sorted(whole.tolist())
        assert all(more - fewer in (0, 1) for more, fewer in pairwise(map(len, parts)))


def test_more_ranks_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match=r"train.batch_size is 3; 4 processes cannot share it"):
        BatchSharder(3, 0, 4)


def test_epochs_differ(reference: dict[tuple[str, str, int], Seen]) -> None:
    """The tests above would hold of a plan that never changes."""
    first, second = reference["raw", "all", 0], reference["raw", "all", 3]
    assert [one[0] for one in first] != [one[0] for one in second]
    by_place = {one[0]: one[3] for one in second}
    assert sum(by_place[one[0]] == one[3] for one in first) < 5
