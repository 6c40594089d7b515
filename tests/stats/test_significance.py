"""Holm's correction by hand, by its bounds and by simulation; McNemar: test_comparison.py."""

import gc
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minet.stats.significance import holm


@pytest.fixture(scope="module")
def _small_heap() -> Iterator[None]:
    """Exclude imported objects from the garbage collection that each call of statsmodels runs."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and at least the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.001, 0.5, 0.9]) == pytest.approx([0.003, 1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])


def test_holm_of_no_tests_is_empty() -> None:
    assert holm([]) == []


@pytest.mark.usefixtures("_small_heap")
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_is_between_the_p_values_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(type(value) is float for value in adjusted)
    for p, value in zip(p_values, adjusted, strict=True):
        assert min(p, 1.0) <= value + 1e-12
        assert value <= min(1.0, p * len(p_values)) or any(
            other < p and value <= min(1.0, other * len(p_values)) + 1e-12 for other in p_values
        )


@pytest.mark.usefixtures("_small_heap")
def test_holm_has_a_false_positive_in_at_most_5_percent_of_families() -> None:
    """2,000 families of 8 tests, 3 of a true difference: +-3 standard errors; 23 % unadjusted."""
    rng = np.random.default_rng(7)
    families, false = 2000, 5
    p_values = rng.random((families, 8))
    p_values[:, false:] **= 20  # small, most of them
    alarms = sum(min(holm(family.tolist())[:false]) < 0.05 for family in p_values)
    assert 0.02 < alarms / families < 0.05 + 3 * math.sqrt(0.05 * 0.95 / families)
