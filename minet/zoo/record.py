"""The record of the zoo: each row's figures beside those that it is held against."""

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
    """What a row left with one seed: its records, and its predictions of the test images."""

    train: Mapping[str, Any]
    test: Mapping[str, Any]
    channels: Mapping[str, Any]
    fingerprint: str
    paths: list[str]
    hits: list[bool]


@dataclass(frozen=True)
class RowOutcome:
    """What a row left: settings, cost, digests of what it stood on, and an outcome a seed."""

    settings: RowSettings
    cost: Mapping[str, Any]
    sources: Mapping[str, str]
    classes: int
    seeds: Mapping[int, SeedOutcome]

    @property
    def hits(self) -> Correct:
        """(S, N) whether each test image was predicted rightly."""
        return np.array([outcome.hits for outcome in self.seeds.values()])


def zoo_record(budget: str, rows: Mapping[str, RowOutcome]) -> dict[str, Any]:
    """Give the record of rows; InputError where two that are compared saw other test images.

    p-values are adjusted by Holm over all comparisons. A row whose baseline is not among the rows
    is held against nothing.
    """
    against = {name: _against(name, rows) for name in rows}
    compared = {name: found for name, found in against.items() if found is not None}
    adjusted = holm([found["p"] for found in compared.values()])
    for found, p_holm in zip(compared.values(), adjusted, strict=True):
        found["p_holm"] = p_holm
    seeds = next(iter(rows.values())).settings.seeds
    described = {name: _described(row) | {"against": against[name]} for name, row in rows.items()}
    return {"budget": budget, "seeds": seeds, "rows": described}


def _against(name: str, rows: Mapping[str, RowOutcome]) -> dict[str, Any] | None:
    row = rows[name]
    other = row.settings.row.baseline
    if other is None or other not in rows:
        return None
    ours, theirs = (next(iter(outcome.seeds.values())) for outcome in (row, rows[other]))
    if ours.paths != theirs.paths:
        raise InputError(f"{name} and {other} were tested on different images; `dvc repro` both")
    return {"row": other} | compare(row.hits, rows[other].hits, rule=row.settings.row.rule)


def _described(outcome: RowOutcome) -> dict[str, Any]:
    settings, row = outcome.settings, outcome.settings.row
    first = next(iter(outcome.seeds.values()))
    published = row.published.model_dump(mode="json", exclude_defaults=True)
    return {
        "report": row.report,
        "title": row.title,
        "model": row.model,
        "arguments": settings.train.arguments,
        "data": row.data,
        "classes": outcome.classes,
        "test_images": len(first.hits),
        "weights": settings.train.weights,
        "pretrained_as_published": row.initial != "random",
        "channels_line": row.channels_line,
        "recipe": settings.train.record()["train"],
        "recipe_as_published": _budgeted(settings),
        "evaluate": settings.evaluate.model_dump(mode="json"),
        **accuracy_summary(outcome.hits),
        "scores": {
            str(seed): {name: found.test[name] for name in _SCORES}
            for seed, found in outcome.seeds.items()
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


def _budgeted(settings: RowSettings) -> dict[str, Any]:
    """Give the settings of the recipe that the budget changed, by dotted key, as published."""
    run = settings.train
    published = run.model_copy(update={"train": settings.published})
    used, before = (dict(flatten(one.record()["train"])) for one in (run, published))
    return {key: value for key, value in before.items() if value != used[key]}
