"""The launcher reports the first failure of several processes, once."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from minet.beton.format import read_format
from minet.beton.reader import BetonReader
from minet.core.errors import InputError, InterruptedRun, report_to_launcher
from minet.train.distributed import launcher
from tests.helpers.tiny_run import TinyRun, make_data, run_settings


class Failures:
    """Failures of processes, in the order in which the launcher sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: list[ProcessFailure] = []

    def add(self, rank: int, code: int, problems: str = "", *, after_s: int = 0) -> "Failures":
        file = self.folder / str(rank) / "error.json"
        file.parent.mkdir()
        if problems:
            extra = {"timestamp": str(int(time.time()) + after_s)}
            message = {"message": problems, "extraInfo": extra, "problems": problems.split("\n")}
            file.write_text(json.dumps({"message": message}))
        failure = ProcessFailure(rank, 100 + rank, code, str(file))
        if not problems:
            failure.timestamp = int(time.time()) + after_s
        self.failures.append(failure)
        return self

    def error(self) -> str:
        """Return the launcher's error for these failures of 3 processes."""
        with pytest.raises(InputError) as error:
            launcher._exit_code_of_failures(self.failures, 3)
        return str(error.value)


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    """Return no failures yet."""
    return Failures(tmp_path)


def test_a_killed_process_comes_before_those_that_lost_it(failures: Failures) -> None:
    failures.add(0, 76).add(2, 76).add(1, -9)
    assert failures.error().startswith("rank 1 of 3 (process 101) was killed by SIGKILL")


def test_an_error_comes_before_the_kill_of_a_process_that_did_not_end(failures: Failures) -> None:
    """The launcher kills later what does not react to SIGTERM."""
    failures.add(1, 1, "image 5 is damaged").add(0, -9, after_s=30).add(2, 75)
    assert failures.error() == "rank 1 of 3 (process 101): image 5 is damaged"


def test_every_problem_is_reported_with_its_rank(failures: Failures) -> None:
    failures.add(2, 1, "one\ntwo").add(0, 76)
    assert failures.error() == (
        "rank 2 of 3 (process 102): one\nrank 2 of 3 (process 102): two"
    )  # fmt: skip


def test_a_failure_without_an_error_file_refers_to_its_output(failures: Failures) -> None:
    failures.add(0, 76).add(1, 1)
    assert failures.error() == "rank 1 of 3 (process 101): exit code 1; see its output above"


def test_ranks_that_were_all_asked_to_stop_did_not_fail(failures: Failures) -> None:
    failures.add(0, 75, "stopped").add(1, -signal.SIGTERM).add(2, 75)
    assert launcher._exit_code_of_failures(failures.failures, 3) == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_launcher_that_got_a_signal_exits_with_its_code_if_all_ranks_have_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    for rank in range(2):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"{rank}" / "error.json"))
        (tmp_path / f"{rank}").mkdir()
        assert report_to_launcher(InterruptedRun(number))
    assert launcher._exit_code_of_stop(number, tmp_path, 2) == code
    with pytest.raises(InputError, match="before all of 3 processes had saved"):
        launcher._exit_code_of_stop(number, tmp_path, 3)


def test_a_launcher_that_got_a_signal_reports_a_rank_that_could_not_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report_to_launcher(InputError("the state cannot be saved: No space left"))
    with pytest.raises(InputError, match="^the state cannot be saved: No space left$"):
        launcher._exit_code_of_stop(signal.SIGTERM, tmp_path, 2)


def test_a_damaged_image_is_reported_with_the_rank_that_reads_it(tmp_path: Path) -> None:
    """In a real run of two processes, while the other waits for it."""
    make_data(tmp_path, storage="jpg")
    beton = tmp_path / "train.beton"
    whole = beton.read_bytes()
    pointers = read_format(beton).offsets
    for image in range(len(pointers)):  # find one that opening does not check
        content = bytearray(whole)
        content[pointers[image] : pointers[image] + 2] = b"no"
        beton.write_bytes(content)
        with suppress(InputError):
            BetonReader(beton)
            break
    run = TinyRun(tmp_path, tmp_path / "r", run_settings("cnn3", processes=2))
    began = time.monotonic()
    output = run.finish(code=1)
    assert time.monotonic() - began < 40, "one rank waited for the other"
    assert "Traceback" not in output
    assert output.count("error: rank ") == 1
    assert f"train.beton: image {image} is" in output
