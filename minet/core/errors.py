"""Exceptions that stages report without a traceback; `InputError` is for a user to fix."""

import json
import os
import signal
import time
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
