"""Shared by all stages: paths as arguments, errors without a traceback, progress bars."""

import argparse
import errno
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

from minet.core.errors import (
    PEER_LOST_CODE,
    InputError,
    InterruptedRun,
    PeerLost,
    report_to_launcher,
)

Item = TypeVar("Item")

_LINE_EVERY_S = 30.0
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def parse_paths(
    description: str | None, *names: str, optional: Iterable[str] = ()
) -> argparse.Namespace:
    """Parse `--name path` for each name: paths are written in dvc.yaml only.

    All are required but `optional`. `@file` reads arguments from a file, one per line.
    """
    parser = argparse.ArgumentParser(description=description, fromfile_prefix_chars="@")
    for name in (*names, *optional):
        parser.add_argument(f"--{name}", type=Path, required=name in names)
    return parser.parse_args()


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; an InputError is printed, one line per problem, with exit code 1."""
    warnings.filterwarnings("ignore", module="PIL")  # about odd metadata in images that decode
    try:
        main()
    except KeyboardInterrupt:
        _exit("stopped; `dvc repro` resumes", 130)
    except InterruptedRun as error:
        report_to_launcher(error)
        is_rank_zero = os.environ.get("RANK", "0") == "0"  # the one that prints
        _exit(f"{error}; `dvc repro` resumes from there" if is_rank_zero else "", error.exit_code)
    except PeerLost as error:
        _exit(str(error), PEER_LOST_CODE)
    except InputError as error:
        reported = report_to_launcher(error)
        _exit("" if reported else "error: " + "\n  ".join(error.problems), 1)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        _exit(f"error: {error.filename or 'writing'}: {error.strerror}", 1)


def _exit(message: str, code: int) -> NoReturn:
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def cores() -> int:
    """Return the number of cores this process may use, by affinity and container limits."""
    from joblib import cpu_count  # here: not every stage uses threads

    return int(cpu_count())


def workers() -> int:
    """Return the number of threads that read images: MINET_WORKERS, or one per core.

    The number changes no byte of any result, so it is not a setting. InputError if it is not a
    positive integer.
    """
    value = os.environ.get("MINET_WORKERS")
    if value is None:
        return cores()
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"MINET_WORKERS is {value!r}; must be a positive integer")
    return int(value)


def progress_bar(
    items: Iterable[Item], total: int, what: str, *, images_each: int = 1
) -> Iterable[Item]:
    """Show the progress of a loop, its images/s and the time left.

    A bar in a terminal; elsewhere (a file, CI) a line every 30 seconds.
    """
    if sys.stderr.isatty() and "CI" not in os.environ:
        return tqdm(
            items, desc=what, total=total, unit=" images", unit_scale=images_each, leave=False
        )
    return _lines(items, total, what, images_each)


def _lines(items: Iterable[Item], total: int, what: str, images_each: int) -> Iterator[Item]:
    """Print a line every `_LINE_EVERY_S` seconds; a shorter loop prints none."""
    began = printed = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - printed >= _LINE_EVERY_S:
            printed = now
            rate = done / (now - began)
            left = timedelta(seconds=round((total - done) / rate))
            speed = f"{rate * images_each:,.0f} images/s"
            unit = "images" if images_each == 1 else "steps"
            print(f"{what}: {done} of {total} {unit}, {speed}, {left} left", flush=True)
        yield item
