"""Write the zoo's page: one HTML file that needs no network."""

from minet.core.cli import parse_paths, run
from minet.core.errors import needs_group
from minet.core.files import atomic_write, read_csv, read_json


def main() -> None:
    """Read the record of all rows and the tables of their runs, write the page."""
    args = parse_paths(__doc__, "comparison", "runs", "page")
    with needs_group("zoo"):
        from minet.zoo.report.page import SeedTables, report_page
    record = read_json(args.comparison)
    runs = {}
    for name in record["rows"]:
        folders = {seed: args.runs / name / str(seed) for seed in record["seeds"]}
        runs[name] = {
            seed: SeedTables(
                history=read_csv(folder / "history.csv"),
                predictions=read_csv(folder / "predictions.csv"),
                classes=read_csv(folder / "classes.csv"),
            )
            for seed, folder in folders.items()
        }
    with atomic_write(args.page) as partial:
        partial.write_text(report_page(record, runs), encoding="utf-8")
    print(f"{len(runs)} rows: {args.page}")


if __name__ == "__main__":
    run(main)
