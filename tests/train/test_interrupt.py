"""Real signals to a process that listens, and how the end of a run is reported."""

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

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]

# prints the noted signal for each line that it reads
PROGRAM = """
import signal, sys, time
from minet.train.interrupt import Interrupt

interrupt = Interrupt(ignore_repeats=sys.argv[1] == "ignore")
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
    print("default handler", flush=True)
"""


class Listener:
    """A process that listens for signals, with its input and output."""

    def __init__(self, root: Path, *, ignore_repeats: bool) -> None:
        command = [sys.executable, "-c", PROGRAM, "ignore" if ignore_repeats else "obey"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, text=True)
        assert self.read() == "listening"

    def read(self) -> str:
        return self._stream(self.process.stdout).readline().strip()

    def write(self, line: str) -> None:
        stream = self._stream(self.process.stdin)
        stream.write(f"{line}\n")
        stream.flush()

    def noted(self) -> int:
        """Return the signal that the process has noted."""
        self.write("which?")
        return int(self.read())

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
    """Return a function that starts a process that listens; it ends with the test."""
    started: list[Listener] = []

    def start(*, ignore_repeats: bool = False) -> Listener:
        started.append(Listener(root, ignore_repeats=ignore_repeats))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("ignore_repeats", [False, True])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_only_noted(
    listen, number: signal.Signals, *, ignore_repeats: bool
) -> None:
    process = listen(ignore_repeats=ignore_repeats)
    assert process.noted() == 0
    process.send(number)
    assert process.noted() == number
    assert process.noted() == number, "it did not continue, or forgot the signal"


@pytest.mark.parametrize("first", STOP_SIGNALS)
def test_a_second_ctrl_c_ends_the_process_at_once(listen, first: signal.Signals) -> None:
    process = listen()
    process.send(first)
    assert process.noted() == first
    process.send(signal.SIGINT)
    assert process.read() == "KeyboardInterrupt"


@pytest.mark.parametrize("first", STOP_SIGNALS)
def test_a_second_sigterm_changes_nothing(listen, first: signal.Signals) -> None:
    """Schedulers send several before SIGKILL."""
    process = listen()
    process.send(first)
    assert process.noted() == first
    process.send(signal.SIGTERM)
    assert process.noted() == first


@pytest.mark.parametrize("first", STOP_SIGNALS)
def test_with_ignore_repeats_the_first_signal_is_noted_and_no_other(
    listen, first: signal.Signals
) -> None:
    """A launcher forwards the signal that the whole group has received already."""
    process = listen(ignore_repeats=True)
    process.send(first)
    assert process.noted() == first
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send(number)
        assert process.noted() == first


@pytest.mark.parametrize("end", ["leave", "fail", "KeyboardInterrupt"])
def test_the_handlers_before_the_run_are_restored_when_it_is_over(listen, end: str) -> None:
    """However it ends: SIGTERM ends the process, SIGINT raises Python's KeyboardInterrupt."""
    for number in STOP_SIGNALS:
        process = listen()
        if end == "KeyboardInterrupt":
            process.send(signal.SIGTERM)
            assert process.noted() == signal.SIGTERM
            process.send(signal.SIGINT)
            assert process.read() == "KeyboardInterrupt"
        else:
            process.write(end)
        assert process.read() == "over"
        process.send(number)
        if number == signal.SIGTERM:
            assert process.process.wait(20) == -signal.SIGTERM
        else:
            assert process.read() == "default handler"


def test_handlers_set_by_other_code_are_restored() -> None:
    def handler(*_: object) -> None:
        pytest.fail("called while Interrupt listens")

    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        interrupt = Interrupt(ignore_repeats=False)
        with interrupt.listening():
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == [handler, handler]
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# --- exit codes and error files ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")],
)
def test_the_exit_code_of_an_interrupted_run_depends_on_the_signal(
    number: signal.Signals, code: int, name: str
) -> None:
    error = InterruptedRun(number)
    assert (error.exit_code, error.signal) == (code, number)
    assert str(error) == f"stopped by {name} and saved"
    assert set(EXIT_CODES) == set(STOP_SIGNALS), "not each signal that is handled has an exit code"


def test_a_process_without_a_launcher_reports_its_problems_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert not report_to_launcher(InputError("no"))


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the error file that torch's launcher sets for a process, with two problems in it."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    assert report_to_launcher(InputError("train.lr is ü; too high", "seed is -1; too low"))
    return path


def test_torch_reads_the_error_file_of_a_process(error_file: Path) -> None:
    """Its time, by which the first of several failures is the root cause, and its problems."""
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


def test_torchs_launcher_can_forward_the_error_file_of_a_process(
    error_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One launcher may be started by another, which reads the same."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "outer.json"))
    ErrorHandler().dump_error_file(str(error_file), 1)
    left = json.loads((tmp_path / "outer.json").read_text(encoding="utf-8"))
    assert left["message"]["problems"] == ["train.lr is ü; too high", "seed is -1; too low"]
    assert left["message"]["errorCode"] == 1


def test_our_launcher_reports_each_problem_with_its_rank(error_file: Path) -> None:
    from minet.train.distributed.launcher import _exit_code_of_failures

    failure = ProcessFailure(1, 4711, 1, str(error_file))
    with pytest.raises(InputError) as error:
        _exit_code_of_failures([failure], 2)
    assert error.value.problems == (
        "rank 1 of 2 (process 4711): train.lr is ü; too high",
        "rank 1 of 2 (process 4711): seed is -1; too low",
    )
