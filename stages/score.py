"""Write the row of the table of models for one that is trained beside the chosen one."""

from minet.core.cli import parse_paths, run
from minet.core.files import read_json, write_json
from minet.evaluate.summary import RECORDS, table_row


def main() -> None:
    """Read the records of the model, write its row."""
    args = parse_paths(__doc__, *RECORDS, "out")
    write_json(args.out, table_row({name: read_json(getattr(args, name)) for name in RECORDS}))


if __name__ == "__main__":
    run(main)
