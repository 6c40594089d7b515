"""Write the settings of a model that is trained beside the chosen one, one file for each stage."""

from minet.core.cli import parse_paths, run
from minet.core.files import atomic_dir, read_json, write_json


def main() -> None:
    """Divide what `resolve` wrote of the model."""
    args = parse_paths(__doc__, "settings", "out")
    with atomic_dir(args.out) as folder:
        for name, record in read_json(args.settings).items():
            write_json(folder / f"{name}.json", record)


if __name__ == "__main__":
    run(main)
