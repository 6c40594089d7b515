"""Random numbers as a function of integer keys: the same keys give the same draws anywhere."""

from enum import IntEnum

import numpy as np


class RngStream(IntEnum):
    """The purpose of a stream of draws: one use does not shift the draws of another."""

    ORDER = 0
    FLIP = 1
    CROP = 2
    ROTATION = 3
    CHANNELS = 4
    STEP = 5
    SAMPLE = 6
    INITIAL_WEIGHTS = 7
    MIXUP = 8
    CUTMIX = 9
    CUTMIX_PLACE = 10
    MIX_KIND = 11
    CHANNEL_DROPOUT = 12
    VALIDATION = 13
    TEST = 14


def generator(seed: int, stream: RngStream, *keys: int) -> np.random.Generator:
    """Return the generator of a stream, e.g. `generator(seed, RngStream.FLIP, epoch)`.

    Keys are non-negative. SeedSequence mixes them, so that seed 1 at epoch 0 shares nothing with
    seed 0 at epoch 1. It does not distinguish a missing key from a 0, so a stream always takes the
    same number of keys.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, *keys])))


def torch_seed(seed: int, stream: RngStream, *keys: int) -> int:
    """Return a 63-bit seed for torch's generators (initial weights, dropout)."""
    state = np.random.SeedSequence([seed, stream, *keys]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
