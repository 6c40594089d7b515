"""Exceptions that stages report without a traceback; `InputError` is for a user to fix."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# exit codes of a run that a signal stopped after saving: EX_TEMPFAIL ("try again") of sysexits.h,
# and the shell's code for Ctrl-C. Schedulers and spot machines send SIGTERM before the time limit
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
PEER_LOST_CODE = 76  # of a process that lost its peers: EX_PROTOCOL, "remote error", of sysexits.h


class InputError(ValueError):
    """Invalid input: `problems` has one line of text per problem, each with what is allowed.

    The stages print it without a traceback and exit with code 1.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def needs_group(group: str) -> Iterator[None]:
    """Turn a failed import of an optional package inside the block into an InputError.

    It names the package and its dependency group in pyproject.toml.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package, _, _ = str(error.name).partition(".")
        if package in ("minet", "stages"):
            raise
        raise _not_installed(package, group) from error


def check_installed(group: str, *packages: str) -> None:
    """Raise the InputError of `needs_group` for the first package that cannot be found.

    Nothing is imported: a command calls this before hours of work that need the packages last.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _not_installed(package, group)


def _not_installed(package: str, group: str) -> InputError:
    return InputError(
        f"{package} is not installed; it is in the dependency group `{group}`: "
        f"`make setup GROUPS={group}`"
    )


class InterruptedRun(Exception):
    """A signal (by its number) stopped the run; its state is saved, and the next run resumes."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name} and saved")

    @property
    def exit_code(self) -> int:
        """Return the exit code of this signal."""
        return EXIT_CODES[self.signal]


class PeerLost(Exception):
    """Another process of the run has ended; that process reports the reason itself."""


def report_to_launcher(error: InputError | InterruptedRun) -> bool:
    """Write the error where the launcher (ours or torchrun) reads it; False without a launcher."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return False
    extra = {"timestamp": str(int(time.time()))}
    message: dict[str, object] = {"message": str(error), "extraInfo": extra}
    message["problems"] = error.problems if isinstance(error, InputError) else []
    Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
    return True
