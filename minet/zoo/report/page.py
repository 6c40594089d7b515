"""The zoo's page: one HTML file that contains its script, its data and its charts."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from minet.augment.channels import CHANNEL_SETS
from minet.zoo.report import details
from minet.zoo.report.charts import charts
from minet.zoo.table import Record, channel_lines, reference, table_cells

ASSETS = Path(__file__).with_name("assets")
_SPLITS = {"train": "training", "val": "validation"}
Table = list[dict[str, str]]


@dataclass(frozen=True)
class SeedTables:
    """CSV files of a run of a row, as text."""

    history: Table
    predictions: Table
    classes: Table


def report_page(record: Record, runs: Mapping[str, Mapping[int, SeedTables]]) -> str:
    """Return the page of zoo/comparison.json; `runs` are the tables by row and seed.

    It needs no network. The same input gives the same bytes.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals |= {"details": details, "reference": reference}
    points = [_point(name, row) for name, row in record["rows"].items()]
    data = {
        "rows": points,
        "curves": {name: list(_curves(name, seeds)) for name, seeds in runs.items()},
        "confusion": {name: _confusion(seeds) for name, seeds in runs.items()},
        "charts": charts(points),
    }
    return environment.get_template("page.html").render(
        record=record,
        rows=record["rows"],
        cells=table_cells(record),
        families=_families(record["rows"]),
        channel_sets=CHANNEL_SETS,
        channel_lines=channel_lines(record),
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own
        script=Markup((ASSETS / "page.js").read_text(encoding="utf-8")),  # noqa: S704 - our own
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),  # noqa: S704 - a script
        data=Markup(_json(data)),  # noqa: S704 - nothing in it ends a script
    )


def _json(data: object) -> str:
    """Return JSON for a <script> element: no text in it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _point(name: str, row: Record) -> dict[str, Any]:
    shown = reference(row["published"])
    return {
        "row": name,
        "report": row["report"],
        "model": row["model"],
        "accuracy": row["accuracy"],
        "low": row["accuracy_low"],
        "high": row["accuracy_high"],
        "published": shown and shown[1],
        "published_of": shown and (shown[0].strip() or "test"),
        "macs": row["cost"]["macs"],
        "parameters": row["cost"]["parameters"],
    }


def _curves(name: str, seeds: Mapping[int, SeedTables]) -> Iterator[dict[str, Any]]:
    for seed, tables in seeds.items():
        for line in tables.history:
            for split, word in _SPLITS.items():
                yield {
                    "row": name,
                    "seed": seed,
                    "epoch": int(line["epoch"]),
                    "split": word,
                    "loss": round(float(line[f"{split}_loss"]), 5),
                    "accuracy": round(float(line[f"{split}_accuracy"]), 5),
                    "lr": float(line["lr"]),
                }


def _confusion(seeds: Mapping[int, SeedTables]) -> dict[str, Any]:
    """Return counts of (label, predicted) over all seeds; only pairs that occur."""
    pairs = Counter(
        (int(line["label"]), int(line["predicted"]))
        for tables in seeds.values()
        for line in tables.predictions
    )
    classes = next(iter(seeds.values())).classes
    return {
        "classes": [line["name"] for line in classes],
        "counts": [[*pair, count] for pair, count in sorted(pairs.items())],
    }


def _families(rows: Mapping[str, Record]) -> dict[str, list[str]]:
    """Return each baseline with the rows that are compared with it, for the curves."""
    families: dict[str, list[str]] = {}
    for name, row in rows.items():
        if row["comparison"]:
            baseline = row["comparison"]["row"]
            families.setdefault(baseline, [baseline]).append(name)
    return families
