"""Signals that ask training to stop: noted here, handled by the loop between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from minet.core.errors import EXIT_CODES


class Interrupt:
    """The signal that has asked this process to stop, or 0.

    A second Ctrl-C ends the process at once, unless `ignore_repeats`: a launcher forwards the
    signal that its whole process group has received already.
    """

    def __init__(self, *, ignore_repeats: bool) -> None:
        self.signal = 0
        self._ignore_repeats = ignore_repeats

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the run lasts; call it in the main thread."""
        handlers = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and not self._ignore_repeats:
            raise KeyboardInterrupt
        self.signal = self.signal or number
