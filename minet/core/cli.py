"""What all stages share: paths as arguments, errors without a traceback, progress bars."""

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

from minet.core.errors import PEER_LOST_CODE, InputError, InterruptedRun, PeerLost, report_to_launcher

Item = TypeVar("Item")

_LINE_EVERY_S = 30.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def parse_paths(
    description: str | None, *names: str, optional: Iterable[str] = ()
) -> argparse.Namespace:
    """Parse `--name path` for each name, all required: paths stand in dvc.yaml alone.

    `@file` stands for the arguments in a file, a line each; an optional path may be left out.
    """
    parser = argparse.ArgumentParser(description=description, fromfile_prefix_chars="@")
    for name in (*names, *optional):
        parser.add_argument(f"--{name}", type=Path, required=name in names)
    return parser.parse_args()


def run(main: Callable[[], None]) -> None:
    """Run a stage; a user's mistake is printed, one line a problem, and the exit code is 1."""
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images that decode
    try:
        main()
    except KeyboardInterrupt:
        _end("stopped; `dvc repro` goes on", 130)
    except InterruptedRun as error:
        report_to_launcher(error)
        of_several = os.environ.get("RANK", "0") != "0"  # of which the first speaks
        _end("" if of_several else f"{error}; `dvc repro` goes on from there", error.exit_code)
    except PeerLost as error:
        _end(str(error), PEER_LOST_CODE)
    except InputError as error:
        told = report_to_launcher(error)
        _end("" if told else "error: " + "\n  ".join(error.problems), 1)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _end(f"error: {error.filename or 'writing'}: {error.strerror}", 1)


def _end(said: str, code: int) -> NoReturn:
    if said:
        print(said, file=sys.stderr, flush=True)
    sys.exit(code)


def cores() -> int:
    """Give the cores that this process may use; affinity and container limits count."""
    from joblib import cpu_count  # here: not every stage has work for threads

    return int(cpu_count())


def workers() -> int:
    """Give the threads to read images with: MINET_WORKERS, or as many as there are cores.

    The number changes no byte of any result, which is why it is no setting.
    """
    asked = os.environ.get("MINET_WORKERS")
    if asked is None:
        return cores()
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"MINET_WORKERS is {asked!r}; must be a whole number from 1")
    return int(asked)


def progress_bar(
    items: Iterable[Item], total: int, what: str, *, images_each: int = 1
) -> Iterable[Item]:
    """Show how far a loop is: a bar in a terminal, in a file or in CI a line now and then.

    Both with images a second and the time left.
    """
    if sys.stderr.isatty() and "CI" not in os.environ:
        return tqdm(
            items, desc=what, total=total, unit=" images", unit_scale=images_each, leave=False
        )
    return _lines(items, total, what, images_each)


def _lines(items: Iterable[Item], total: int, what: str, images_each: int) -> Iterator[Item]:
    """Print a line every so many seconds; a loop that is faster prints none."""
    began = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= _LINE_EVERY_S:
            told = now
            rate = done / (now - began)
            left = timedelta(seconds=round((total - done) / rate))
            speed = f"{rate * images_each:,.0f} images/s"
            unit = "images" if images_each == 1 else "steps"
            print(f"{what}: {done} of {total} {unit}, {speed}, {left} left", flush=True)
        yield item
