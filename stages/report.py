"""Write the zoo's page: one HTML file that needs no network."""

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_write, read_csv, read_json
from minet.zoo.report.page import SeedTables, report_page


def main() -> None:
    """Read the record of all rows and their runs' tables, write the page."""
    args = parse_paths(__doc__, *("comparison", "runs"), *("page",))
    record = read_json(args.comparison)
    runs = {
        name: {
            seed: SeedTables(
                *(
                    read_csv(args.runs / name / str(seed) / f"{table}.csv")
                    for table in ("history", "predictions", "classes")
                )
            )
            for seed in record["seeds"]
        }
        for name in record["rows"]
    }
    with atomic_write(args.page) as partial:
        partial.write_text(report_page(record, runs), encoding="utf-8")
    print(f"{len(runs)} rows: {args.page}")


if __name__ == "__main__":
    run(main)
