"""Turn one split's images into a beton and its sidecar."""

from minet.beton.config import BetonRunSettings
from minet.beton.writer import write_beton
from minet.core.cli import parse_paths, progress_bar, run, workers
from minet.core.files import read_csv, write_json
from minet.core.settings import read_settings


def main() -> None:
    """Write the beton, then the sidecar with its digest, counts and pixel statistics."""
    args = parse_paths(__doc__, "settings", "index", "out")
    settings = read_settings(args.settings, BetonRunSettings)
    record = write_beton(
        args.out,
        read_csv(args.index),
        settings,
        workers=workers(),
        progress=lambda items, total: progress_bar(items, total, args.out.name),
    )
    write_json(args.out.with_suffix(".json"), record)
    print(f"{args.out}: {record['count']} images, {record['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
