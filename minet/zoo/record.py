"""The record of the zoo, zoo/comparison.json: each row's metrics beside its baseline's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minet.core.errors import InputError
from minet.core.settings import flatten
from minet.stats.comparison import compare
from minet.stats.intervals import Correct, accuracy_summary
from minet.stats.significance import holm
from minet.zoo.config import RowSettings

_SCORES = ("accuracy", "loss", "top5", "precision", "recall", "f1", "macro_f1")
_COSTS = ("parameters", "parameter_mb", "macs", "flops", "activation_mb", "depth", "input_px")


@dataclass(frozen=True)
class SeedOutcome:
    """Results of a row with one seed: its records, and which test images it predicts correctly."""

    train: Mapping[str, Any]
    test: Mapping[str, Any]
    channels: Mapping[str, Any]
    fingerprint: str
    paths: list[str]
    correct: list[bool]


@dataclass(frozen=True)
class RowOutcome:
    """Results of a row: settings, cost, digests of its inputs, and an outcome per seed."""

    settings: RowSettings
    cost: Mapping[str, Any]
    sources: Mapping[str, str]
    num_classes: int
    seeds: Mapping[int, SeedOutcome]

    @property
    def correct(self) -> Correct:
        """(S, N) of seeds by test images."""
        return np.array([outcome.correct for outcome in self.seeds.values()])

    @property
    def first_seed(self) -> SeedOutcome:
        """Outcome of the first seed, which significance tests and channel sets are about."""
        return next(iter(self.seeds.values()))


def zoo_record(budget: str, rows: Mapping[str, RowOutcome]) -> dict[str, Any]:
    """Return the record of rows; InputError if a row and its baseline have other test images.

    p-values are adjusted by Holm over all comparisons. `comparison` is None for a row without a
    baseline among the rows.
    """
    comparisons = {name: _comparison(name, rows) for name in rows}
    made = [comparison for comparison in comparisons.values() if comparison is not None]
    for comparison, p_holm in zip(made, holm([c["p"] for c in made]), strict=True):
        comparison["p_holm"] = p_holm
    return {
        "budget": budget,
        "seeds": next(iter(rows.values())).settings.seeds,
        "rows": {
            name: _row_record(row) | {"comparison": comparisons[name]} for name, row in rows.items()
        },
    }


def _comparison(name: str, rows: Mapping[str, RowOutcome]) -> dict[str, Any] | None:
    row = rows[name]
    other = row.settings.row.baseline
    if other is None or other not in rows:
        return None
    baseline = rows[other]
    if row.first_seed.paths != baseline.first_seed.paths:
        raise InputError(f"{name} and {other} were tested on different images; `dvc repro` both")
    target_ratio = row.settings.row.target_ratio
    return {"row": other} | compare(row.correct, baseline.correct, target_ratio=target_ratio)


def _row_record(outcome: RowOutcome) -> dict[str, Any]:
    settings, row, first = outcome.settings, outcome.settings.row, outcome.first_seed
    published = row.published.model_dump(mode="json", exclude_defaults=True)
    return {
        "report": row.report,
        "title": row.title,
        "model": row.model,
        "arguments": settings.train.arguments,
        "data": row.data,
        "classes": outcome.num_classes,
        "test_images": len(first.correct),
        "weights": settings.train.weights,
        "pretrained_as_published": row.initial != "random",
        "channels_line": row.channels_line,
        "recipe": settings.train.record()["train"],
        "recipe_as_published": _changed_by_budget(settings),
        "evaluate": settings.evaluate.model_dump(mode="json"),
        **accuracy_summary(outcome.correct),
        "scores": {
            str(seed): {name: of_seed.test[name] for name in _SCORES}
            for seed, of_seed in outcome.seeds.items()
        },
        "channels": first.channels,
        "cost": {name: outcome.cost[name] for name in _COSTS},
        "published": published,
        "note": row.note,
        "provenance": {
            "fingerprint": first.fingerprint,
            "best_epoch": first.train["best_epoch"],
            "sources": outcome.sources,
        },
    }


def _changed_by_budget(settings: RowSettings) -> dict[str, Any]:
    """Return the published values of the settings that the budget changed, by dotted key."""
    run = settings.train
    as_published = run.model_copy(update={"train": settings.published})
    used, published = (dict(flatten(one.record()["train"])) for one in (run, as_published))
    return {key: value for key, value in published.items() if value != used[key]}
