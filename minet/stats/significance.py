"""Significance tests of classifiers on the same test images, and their correction for number."""

from collections.abc import Sequence

from minet.core.errors import needs_group


def mcnemar_p(only_this: int, only_baseline: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947).

    The arguments count the discordant images: those that one classifier alone predicts correctly.
    Images on which both are right or both are wrong do not enter the test. InputError if
    statsmodels is not installed.
    """
    with needs_group("zoo"):
        from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, only_this], [only_baseline, 0]], exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests, adjusted for their number (Holm 1979).

    For any dependence between the tests, at most 5 % of such families have an adjusted value below
    0.05 where there is no true difference. InputError if statsmodels is not installed.
    """
    if not p_values:  # statsmodels before 0.15 divides by their number
        return []
    with needs_group("zoo"):
        from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
