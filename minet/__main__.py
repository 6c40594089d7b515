"""Commands beside the pipeline: python -m minet verify | zoo."""

import argparse
import sys
from pathlib import Path

from minet.beton.verify import verify
from minet.core.cli import cores, run, workers
from minet.core.errors import InputError, check_installed
from minet.zoo.run import run_zoo, run_zoo_on_ray


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m minet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("verify", help="compare every byte of betons with their sidecars")
    command.add_argument("beton", type=Path, nargs="+")
    command = commands.add_parser(
        "zoo", help="reproduce all rows of the zoo, then its tables and page"
    )
    command.add_argument("--jobs", type=int, default=2, help="rows at a time")
    command.add_argument(
        "--ray", metavar="ADDRESS", help="run each row as a task of this Ray cluster"
    )
    command.add_argument("--row-cores", type=int, default=1, help="cores of a row's task")
    command.add_argument(
        "--source", metavar="URL", help="what nodes clone; default: origin, or this folder"
    )
    command.add_argument(
        "--rows", nargs="+", default=[], metavar="ROW", help="only these rows and their baselines"
    )
    args = parser.parse_args()
    if args.command == "verify":
        _verify(args.beton)
    else:
        _zoo(args)


def _verify(paths: list[Path]) -> None:
    """Print a line for each intact beton; InputError lists the problems of the others."""
    check_installed("verify", "ffcv")
    problems: list[str] = []
    threads = workers()
    for path in paths:
        try:
            record = verify(path, threads)
        except InputError as error:
            problems += error.problems
        else:
            size_mb, digest = record["bytes"] / 1e6, record["content_xxh3"]
            print(f"{path}: {record['count']} images, {size_mb:.1f} MB, as written ({digest})")
    if problems:
        raise InputError(*problems)


def _zoo(args: argparse.Namespace) -> None:
    for option, value in {"--jobs": args.jobs, "--row-cores": args.row_cores}.items():
        if value < 1:
            raise InputError(f"{option} is {value}; must be at least 1")
    try:
        if args.ray:
            run_zoo_on_ray(args.ray, args.row_cores, args.source, args.rows)
        else:
            run_zoo(args.jobs, cores(), args.rows)
    except KeyboardInterrupt:
        print("stopped; `make zoo` resumes", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run(main)
