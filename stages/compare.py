"""Compare the rows of the zoo with the published figures and with their baselines."""

from typing import Any

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_write, write_json
from minet.core.settings import read_settings
from minet.zoo.config import ZooSettings
from minet.zoo.outcomes import Folders, row_outcome
from minet.zoo.record import zoo_record
from minet.zoo.table import MEANING, channel_table, zoo_table

_PAGE = """# The zoo: {rows} rows of published experiments and ours

Budget `{budget}`{meaning}; seeds {seeds}. Written by `make zoo` from `zoo/comparison.json`;
explained in `docs/zoo.md`.

{table}

Test accuracy by channel set, published / ours:

{channels}
"""


def main() -> None:
    """Write the record and the table of all rows."""
    args = parse_paths(__doc__, "settings", "inputs", "runs", "costs", "comparison", "table")
    zoo = read_settings(args.settings / "zoo.json", ZooSettings)
    folders = Folders(settings=args.settings, inputs=args.inputs, runs=args.runs, costs=args.costs)
    rows = {name: row_outcome(name, folders) for name in zoo.rows}
    record = zoo_record(zoo.budget, rows)
    write_json(args.comparison, record)
    with atomic_write(args.table) as partial:
        partial.write_text(_page(record), encoding="utf-8")
    print(f"{len(rows)} rows: {args.table}")


def _page(record: dict[str, Any]) -> str:
    return _PAGE.format(
        rows=len(record["rows"]),
        budget=record["budget"],
        meaning=MEANING.get(record["budget"], ""),
        seeds=", ".join(map(str, record["seeds"])),
        table=zoo_table(record),
        channels=channel_table(record),
    )


if __name__ == "__main__":
    run(main)
