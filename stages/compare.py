"""Hold the rows of the zoo against what was published and against one another."""

import argparse
from pathlib import Path
from typing import Any

from minet.results import read_csv, read_json, whole_file, write_json
from minet.settings import read_settings
from minet.settings_zoo import RowSettings, ZooSettings
from minet.zoo_record import RowOutcome, SeedOutcome, zoo_record
from minet.zoo_table import channel_table, zoo_table
from stages.cli import parse_paths, run

_PAGE = """# The zoo: {rows} rows of published experiments and ours

Budget `{budget}`{meaning}; seeds {seeds}. By `make zoo`, from `zoo/comparison.json`; how to read it
is in `docs/zoo.md`.

{table}

Accuracy by channel set, published / ours:

{channels}
"""
_MEANING = {
    "smoke": ": seconds a row, all from random weights. It shows that the rows run, and says "
    "nothing about the models"
}


def main() -> None:
    """Write the record and the table of all rows."""
    args = parse_paths(__doc__, *("settings", "inputs", "runs", "costs"), *("comparison", "table"))
    zoo = read_settings(args.settings / "zoo.json", ZooSettings)
    rows = {name: _outcome(name, args) for name in zoo.rows}
    record = zoo_record(zoo.budget, rows)
    write_json(args.comparison, record)
    with whole_file(args.table) as partial:
        partial.write_text(_page(record), encoding="utf-8")
    print(f"{len(rows)} rows: {args.table}")


def _page(record: dict[str, Any]) -> str:
    return _PAGE.format(
        rows=len(record["rows"]),
        budget=record["budget"],
        meaning=_MEANING.get(record["budget"], ""),
        seeds=", ".join(map(str, record["seeds"])),
        table=zoo_table(record),
        channels=channel_table(record),
    )


def _outcome(name: str, args: argparse.Namespace) -> RowOutcome:
    settings = read_settings(args.settings / "rows" / f"{name}.json", RowSettings)
    inputs = args.inputs / name
    sources = [read_json(inputs / f"{part}.sources.json") for part in ("train", "evaluate")]
    classes = read_csv(args.runs / name / str(settings.seeds[0]) / "classes.csv")
    return RowOutcome(
        settings,
        read_json(args.costs / f"{name}.json"),
        sources[0] | sources[1],
        len(classes),
        {seed: _seed_outcome(args.runs / name / str(seed)) for seed in settings.seeds},
    )


def _seed_outcome(folder: Path) -> SeedOutcome:
    predictions = read_csv(folder / "predictions.csv")
    return SeedOutcome(
        train=read_json(folder / "train.json"),
        test=read_json(folder / "test.json"),
        channels=read_json(folder / "channels.json"),
        fingerprint=read_json(folder / "model.json")["fingerprint"],
        paths=[row["path"] for row in predictions],
        hits=[row["label"] == row["predicted"] for row in predictions],
    )


if __name__ == "__main__":
    run(main)
