"""Being asked to stop: a signal becomes a wish that the loop sees between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from minet.core.errors import EXIT_CODES


class Interrupt:
    """Which signal has asked this process to stop, if one has."""

    def __init__(self, *, patient: bool) -> None:
        """Ignore further signals if `patient`; else a second Ctrl-C ends the process at once.

        A launcher hands on the signal that its whole group has got already.
        """
        self.signal = 0
        self._patient = patient

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the run lasts; only the main thread can."""
        before = {number: signal.signal(number, self._take) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        self.signal = self.signal or number
