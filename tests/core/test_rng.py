"""Random numbers as a function of integer keys."""

from itertools import product

import numpy as np
import pytest

from minet.core.rng import RngStream, generator, torch_seed

KEYS = list(product((0, 1, 2), RngStream, (0, 1, 2)))  # seed, stream, epoch


def test_numbers_of_the_streams_are_pinned() -> None:
    """A changed number changes the results of every seed."""
    assert {stream.name: stream.value for stream in RngStream} == {
        "ORDER": 0,
        "FLIP": 1,
        "CROP": 2,
        "ROTATION": 3,
        "CHANNELS": 4,
        "STEP": 5,
        "SAMPLE": 6,
        "INITIAL_WEIGHTS": 7,
        "MIXUP": 8,
        "CUTMIX": 9,
        "CUTMIX_PLACE": 10,
        "MIX_KIND": 11,
        "CHANNEL_DROPOUT": 12,
        "VALIDATION": 13,
        "TEST": 14,
    }


def test_the_same_keys_give_the_same_draws() -> None:
    for seed, stream, epoch in KEYS:
        one, again = generator(seed, stream, epoch), generator(seed, stream, epoch)
        assert np.array_equal(one.random(8), again.random(8))
        assert torch_seed(seed, stream, epoch) == torch_seed(seed, stream, epoch)


def test_seeds_streams_and_epochs_share_no_draw() -> None:
    """Seed 1 at epoch 0 differs from seed 0 at epoch 1; no stream is another one shifted."""
    draws = [draw for keys in KEYS for draw in generator(*keys).random(64)]
    assert len(set(draws)) == len(draws)
    seeds = [torch_seed(*keys) for keys in KEYS]
    assert len(set(seeds)) == len(seeds)


def test_the_order_of_keys_matters() -> None:
    assert torch_seed(0, RngStream.STEP, 1, 2) != torch_seed(0, RngStream.STEP, 2, 1)
    assert torch_seed(1, RngStream.ORDER, 2) != torch_seed(2, RngStream.FLIP, 0)


def test_streams_of_two_epochs_are_not_correlated() -> None:
    one, other = (generator(0, RngStream.FLIP, epoch).random(20_000) for epoch in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(20_000)


def test_draws_do_not_change_numpys_global_state() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state under test
    generator(0, RngStream.ORDER, 0).permutation(100)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("keys", "raw", "seed"),
    [
        ((0, RngStream.ORDER, 0), 11_749_869_230_777_074_271, 7_896_617_691_693_857_887),
        ((0, RngStream.ORDER, 1), 8_286_993_518_594_409_552, 4_324_601_099_084_218_337),
        ((1, RngStream.ORDER, 0), 9_441_442_522_235_856_127, 3_717_377_837_946_358_015),
        ((3, RngStream.STEP, 2, 5), 17_739_665_122_042_854_348, 5_525_736_258_597_738_759),
        (
            (2**32 - 1, RngStream.INITIAL_WEIGHTS),
            17_055_621_359_559_703_122,
            474_547_428_913_669_383,
        ),
    ],
)
def test_values_are_pinned(keys: tuple[int, ...], raw: int, seed: int) -> None:
    """The first 64 bits of a generator, and torch's seed, are the same on every machine."""
    number, stream, *rest = keys
    assert int(generator(number, RngStream(stream), *rest).bit_generator.random_raw()) == raw
    assert torch_seed(number, RngStream(stream), *rest) == seed


def test_torchs_seed_is_in_the_range_that_torch_accepts() -> None:
    assert all(0 <= torch_seed(*keys) < 2**63 for keys in KEYS)
