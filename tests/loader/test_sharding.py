"""Shards and micro-batches of ranks that have no image of a small batch."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minet.core.arrays import batched, ceil_div
from minet.loader.sharding import BatchSharder, micro_batches


@given(st.data())
def test_padding_gives_every_rank_an_image_of_every_batch_and_changes_nothing_else(
    data: st.DataObject,
) -> None:
    world_size = data.draw(st.integers(1, 6), label="world_size")
    batch_size = data.draw(st.integers(world_size, 12), label="batch_size")
    count = data.draw(st.integers(0, 40), label="count")
    paired = data.draw(st.booleans(), label="paired")
    order = np.random.default_rng(0).permutation(count)
    for rank in range(world_size):
        sharder = BatchSharder(batch_size, rank, world_size, paired=paired)
        exact, padded = sharder.order(order), sharder.padded_order(order)
        batches = list(batched(padded, sharder.size))
        assert len(batches) == ceil_div(count, batch_size)
        assert padded[: len(exact)].tolist() == exact.tolist()
        padding = padded[len(exact) :].tolist()
        if padding:
            assert sharder.local_count(count % batch_size) == 0
            assert padding == [order[-1]] * (2 if paired else 1)


def test_padding_by_hand() -> None:
    """Nine images in batches of 4 for 4 ranks: the last batch has one, of rank 0."""
    sharders = [BatchSharder(4, rank, 4) for rank in range(4)]
    assert [sharder.padded_order(np.arange(9)).tolist() for sharder in sharders] == [
        [0, 4, 8],
        [1, 5, 8],
        [2, 6, 8],
        [3, 7, 8],
    ]


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_resumed_epoch_is_padded_as_the_whole_one(done: int) -> None:
    order = np.arange(9)
    sharder = BatchSharder(4, 2, 4)
    rest = sharder.padded_order(order)[done * sharder.size :]
    assert rest.tolist() == sharder.padded_order(order[done * 4 :]).tolist()


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 6))
def test_the_counted_rows_of_micro_batches_are_all_images_once(
    images: int, accumulation_steps: int, world_size: int
) -> None:
    """And each micro-batch has the same images for any number of ranks."""
    alone = micro_batches(images, accumulation_steps, rank=0, world_size=1)
    assert len(alone) == min(accumulation_steps, images)
    assert not any(micro.is_padding for micro in alone)
    sizes = [len(range(images)[micro.rows]) for micro in alone]
    assert sum(sizes) == images
    assert max(sizes) - min(sizes) <= 1
    cut: list[list[int]] = [[] for _ in alone]
    for rank in range(world_size):
        own = list(range(rank, images, world_size))
        micros = micro_batches(images, accumulation_steps, rank=rank, world_size=world_size)
        for part, micro in zip(cut, micros, strict=True):
            assert len((own or [0])[micro.rows]) > 0, "a rank has no row to run"
            part.extend([] if micro.is_padding else own[micro.rows])
    expected = [list(range(images))[micro.rows] for micro in alone]
    assert [sorted(part) for part in cut] == expected
    assert sorted(chain.from_iterable(cut)) == list(range(images))


def test_micro_batches_by_hand() -> None:
    """Five images in 2 micro-batches of 3 and 2 for 3 ranks: rank 2 has none of the second."""
    assert [
        [(micro.rows, micro.is_padding) for micro in micro_batches(5, 2, rank=rank, world_size=3)]
        for rank in range(3)
    ] == [
        [(slice(0, 1), False), (slice(1, 2), False)],
        [(slice(0, 1), False), (slice(1, 2), False)],
        [(slice(0, 1), False), (slice(0, 1), True)],
    ]
