"""What all stages share: paths as arguments, errors without a traceback, progress bars."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from minet.errors import InputError

Item = TypeVar("Item")


def parse_paths(description: str | None, *names: str) -> argparse.Namespace:
    """Parse `--name path` for each name; all are required, since paths stand in dvc.yaml alone."""
    parser = argparse.ArgumentParser(description=description)
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def run(main: Callable[[], None]) -> None:
    """Run a stage; a user's mistake is printed, one line a problem, and the exit code is 1."""
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images that decode
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; `dvc repro` goes on", file=sys.stderr, flush=True)
        sys.exit(130)
    except InputError as error:
        print("error:", "\n  ".join(error.problems), file=sys.stderr, flush=True)
        sys.exit(1)


def workers() -> int:
    """Give the threads to read images with: MINET_WORKERS, or all cores of this process.

    Affinity and container limits count. The number changes no byte of any result, which is why it
    is no setting.
    """
    asked = os.environ.get("MINET_WORKERS")
    if asked is None:
        from joblib import cpu_count  # here: not every stage has work for threads

        return int(cpu_count())
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"MINET_WORKERS is {asked!r}; must be a whole number from 1")
    return int(asked)


def bar(items: Iterable[Item], total: int, what: str, *, images_each: int = 1) -> Iterable[Item]:
    """Show a progress bar with images a second and time left, in a terminal only."""
    return tqdm(
        items,
        desc=what,
        total=total,
        unit=" images",
        unit_scale=images_each,
        disable=None,
        leave=False,
    )
