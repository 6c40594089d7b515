"""Committed results of the zoo, with words of before replaced until `make zoo` writes them anew."""

import json
import re
from pathlib import Path
from typing import Any

from minet.zoo.report.page import SeedTables, report_page
from tests.helpers.tree import ROOT


def committed_record() -> dict[str, Any]:
    """Return zoo/comparison.json."""
    record = json.loads((ROOT / "zoo/comparison.json").read_text())
    for row in record["rows"].values():
        if "against" in row:
            row["comparison"] = row.pop("against")
        if row["comparison"] and "rule" in row["comparison"]:
            row["comparison"]["target_ratio"] = row["comparison"].pop("rule")
    return record


def committed_table() -> str:
    """Return zoo/table.md."""
    text = (ROOT / "zoo/table.md").read_text()
    text = text.replace("| against |", "| baseline |")
    return text.replace("| 90 %? |", "| \N{GREATER-THAN OR EQUAL TO} 90 %? |")


def committed_page(folder: Path) -> Path:
    """Return a page of the committed record with the runs that zoo/report.html contains."""
    text = (ROOT / "zoo/report.html").read_text()
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match
    data = json.loads(match[1])
    runs = {name: _seed_tables(data, name) for name in data["curves"]}
    page = folder / "report.html"
    page.write_text(report_page(committed_record(), runs), encoding="utf-8")
    return page


def _seed_tables(data: dict[str, Any], name: str) -> dict[int, SeedTables]:
    """Make the tables of a row's runs from the data of the page; predictions are of the first."""
    seeds: dict[int, dict[int, dict[str, str]]] = {}
    for point in data["curves"][name]:
        line = seeds.setdefault(point["seed"], {}).setdefault(point["epoch"], {})
        prefix = {"training": "train", "validation": "val"}[point["split"]]
        line |= {"epoch": str(point["epoch"]), "lr": str(point["lr"])}
        line |= {f"{prefix}_{key}": str(point[key]) for key in ("loss", "accuracy")}
    confusion = data["confusion"][name]
    predictions = [
        {"label": str(label), "predicted": str(predicted)}
        for label, predicted, count in confusion["counts"]
        for _ in range(count)
    ]
    return {
        seed: SeedTables(
            history=list(lines.values()),
            predictions=predictions if index == 0 else [],
            classes=[{"name": text} for text in confusion["classes"]],
        )
        for index, (seed, lines) in enumerate(seeds.items())
    }
