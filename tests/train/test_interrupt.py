"""Being asked to stop, by real signals in a process of its own; and how an end is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ErrorHandler,
    ProcessFailure,
)

from minet.core.errors import EXIT_CODES, InputError, InterruptedRun, report_to_launcher
from minet.train.interrupt import Interrupt

ASKED = [signal.SIGTERM, signal.SIGINT]

# answers each line with the signal that it has noted
PROGRAM = """
import signal, sys, time
from minet.train.interrupt import Interrupt

interrupt = Interrupt(patient=sys.argv[1] == "patient")
try:
    with interrupt.listening():
        print("listening", flush=True)
        for line in sys.stdin:
            time.sleep(0.01)
            if line == "leave\\n":
                break
            if line == "fail\\n":
                raise ZeroDivisionError
            print(int(interrupt.signal), flush=True)
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
except ZeroDivisionError:
    pass
try:
    print("over", flush=True)
    for line in sys.stdin:
        print("still here", flush=True)
except KeyboardInterrupt:
    print("interrupted as ever", flush=True)
"""


class Listener:
    """A process that listens, with what it says."""

    def __init__(self, root: Path, *, patient: bool) -> None:
        command = [sys.executable, "-c", PROGRAM, "patient" if patient else "impatient"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, text=True)
        assert self.heard() == "listening"

    def heard(self) -> str:
        return self._stream(self.process.stdout).readline().strip()

    def say(self, line: str) -> None:
        stream = self._stream(self.process.stdin)
        stream.write(f"{line}\n")
        stream.flush()

    def asked(self) -> int:
        """Give the signal that the process has noted."""
        self.say("which?")
        return int(self.heard())

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def listen(root: Path) -> Iterator[Callable[..., Listener]]:
    """Give what starts a process that listens; it ends with the test."""
    started: list[Listener] = []

    def start(*, patient: bool = False) -> Listener:
        started.append(Listener(root, patient=patient))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("number", ASKED)
def test_the_first_signal_is_only_noted(listen, number: signal.Signals, *, patient: bool) -> None:
    process = listen(patient=patient)
    assert process.asked() == 0
    process.send(number)
    assert process.asked() == number
    assert process.asked() == number, "it went on, and was asked only once"


@pytest.mark.parametrize("first", ASKED)
def test_a_second_interrupt_ends_the_process_at_once(listen, first: signal.Signals) -> None:
    process = listen()
    process.send(first)
    assert process.asked() == first
    process.send(signal.SIGINT)
    assert process.heard() == "KeyboardInterrupt"


@pytest.mark.parametrize("first", ASKED)
def test_a_second_sigterm_changes_nothing(listen, first: signal.Signals) -> None:
    """Schedulers send several, before the one that no process can refuse."""
    process = listen()
    process.send(first)
    assert process.asked() == first
    process.send(signal.SIGTERM)
    assert process.asked() == first


@pytest.mark.parametrize("first", ASKED)
def test_one_that_is_patient_notes_the_first_signal_and_no_other(
    listen, first: signal.Signals
) -> None:
    """A launcher hands on what the whole group has got already."""
    process = listen(patient=True)
    process.send(first)
    assert process.asked() == first
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send(number)
        assert process.asked() == first


@pytest.mark.parametrize("way", ["leave", "fail", "KeyboardInterrupt"])
def test_signals_do_again_what_they_did_before_when_the_run_is_over(listen, way: str) -> None:
    """However it ends: then one ends the process, the other is Python's KeyboardInterrupt."""
    for number in ASKED:
        process = listen()
        if way == "KeyboardInterrupt":
            process.send(signal.SIGTERM)
            assert process.asked() == signal.SIGTERM
            process.send(signal.SIGINT)
            assert process.heard() == "KeyboardInterrupt"
        else:
            process.say(way)
        assert process.heard() == "over"
        process.send(number)
        if number == signal.SIGTERM:
            assert process.process.wait(20) == -signal.SIGTERM
        else:
            assert process.heard() == "interrupted as ever"


def test_handlers_of_others_are_put_back() -> None:
    def handler(*_: object) -> None:
        pytest.fail("not while another listens")

    before = {number: signal.signal(number, handler) for number in ASKED}
    try:
        interrupt = Interrupt(patient=False)
        with interrupt.listening():
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        assert [signal.getsignal(number) for number in ASKED] == [handler, handler]
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# --- how an end is told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")],
)
def test_a_run_that_was_asked_to_stop_tells_by_its_exit_code_who_asked(
    number: signal.Signals, code: int, name: str
) -> None:
    error = InterruptedRun(number)
    assert (error.exit_code, error.signal) == (code, number)
    assert str(error) == f"stopped by {name} and saved"
    assert set(EXIT_CODES) == set(ASKED), "what is listened to has an exit code"


def test_problems_are_kept_by_a_process_that_no_launcher_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert not report_to_launcher(InputError("no"))


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file that a launcher of torch's names to a process, with a problem left in it."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    assert report_to_launcher(InputError("train.lr is ü; too high", "seed is -1; too low"))
    return path


def test_torch_reads_what_a_process_has_left_to_its_launcher(error_file: Path) -> None:
    """Its time, so that the first of several is the root cause, and what it says."""
    now = time.time()
    mine = ProcessFailure(1, os.getpid(), 1, str(error_file))
    assert now - 30 < mine.timestamp <= now
    assert mine.error_file_data["message"]["problems"] == [
        "train.lr is ü; too high",
        "seed is -1; too low",
    ]
    other = ProcessFailure(0, os.getpid(), 1, str(error_file.with_name("none")))
    other.timestamp = int(now) + 5
    failed = ChildFailedError("stages.train", {0: other, 1: mine})
    assert failed.get_first_failure() == (1, mine)
    root_cause = str(failed).partition("Root Cause")[2]
    assert "train.lr is ü; too high\n  seed is -1; too low" in root_cause


def test_torchs_launcher_can_hand_on_what_a_process_has_left(
    error_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One launcher may be started by another, which reads the same."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "outer.json"))
    ErrorHandler().dump_error_file(str(error_file), 1)
    left = json.loads((tmp_path / "outer.json").read_text(encoding="utf-8"))
    assert left["message"]["problems"] == ["train.lr is ü; too high", "seed is -1; too low"]
    assert left["message"]["errorCode"] == 1


def test_our_launcher_tells_each_problem_with_the_rank_that_had_it(error_file: Path) -> None:
    from minet.train.distributed.launcher import _told

    failure = ProcessFailure(1, 4711, 1, str(error_file))
    with pytest.raises(InputError) as told:
        _told([failure], 2)
    assert told.value.problems == (
        "rank 1 of 2 (process 4711): train.lr is ü; too high",
        "rank 1 of 2 (process 4711): seed is -1; too low",
    )
