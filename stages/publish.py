"""Write what Git and `dvc metrics diff` see: the metrics of the chosen model, a table of all."""

from minet.core.cli import parse_paths, run
from minet.core.files import read_json, write_csv, write_json
from minet.core.settings import read_settings
from minet.evaluate.summary import RECORDS, PublishSettings, summary, table_row


def main() -> None:
    """Write metrics and table; the other models of the table are those that `also` names."""
    args = parse_paths(__doc__, "settings", *RECORDS, "scores", "metrics", "table")
    records = {name: read_json(getattr(args, name)) for name in RECORDS}
    also = read_settings(args.settings, PublishSettings).models[1:]
    rows = [table_row(records), *(read_json(args.scores / f"{name}.json") for name in also)]
    write_json(args.metrics, summary(records))
    write_csv(args.table, list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    run(main)
