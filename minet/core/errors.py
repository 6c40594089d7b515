"""Exceptions that stages tell without a traceback; `InputError` is for what a user can mend."""

import json
import os
import signal
import time
from pathlib import Path

# how a run ends that was asked to stop and is saved: sysexits' "try again", the shell's Ctrl-C;
# SIGTERM comes from schedulers and spot machines before the time is up
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
PEER_LOST_CODE = 76  # of a process that has lost the others of its run: sysexits' "remote error"


class InputError(ValueError):
    """Input that cannot be used; lists every problem of its kind, each with what is allowed.

    The stages print it without a traceback and exit with code 1.
    """

    def __init__(self, *problems: str) -> None:
        """Take one line of text per problem."""
        super().__init__("\n".join(problems))
        self.problems = problems


class InterruptedRun(Exception):
    """The run was asked to stop; its state is saved, and the next run goes on from there."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal that asked."""
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name} and saved")

    @property
    def exit_code(self) -> int:
        """Give the exit code that tells this end from others."""
        return EXIT_CODES[self.signal]


class PeerLost(Exception):
    """Another process of the run is gone, and says or has shown why."""


def left_to_launcher(error: InputError | InterruptedRun) -> bool:
    """Leave to the launcher, ours or torch's, how a rank ended; False if there is none."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return False
    extra = {"timestamp": str(int(time.time()))}
    message: dict[str, object] = {"message": str(error), "extraInfo": extra}
    message["problems"] = error.problems if isinstance(error, InputError) else []
    Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
    return True
