"""Why a run of several processes ended: what came first, told once."""

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
from minet.train.distributed import launcher as launch
from tests.helpers.tiny_run import TinyRun, make_data, run_settings


class Ends:
    """Ends of processes, in the order in which the launcher sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[ProcessFailure] = []

    def add(self, rank: int, code: int, said: str = "", *, after_s: int = 0) -> "Ends":
        file = self.folder / str(rank) / "error.json"
        file.parent.mkdir()
        if said:
            extra = {"timestamp": str(int(time.time()) + after_s)}
            message = {"message": said, "extraInfo": extra, "problems": said.split("\n")}
            file.write_text(json.dumps({"message": message}))
        failure = ProcessFailure(rank, 100 + rank, code, str(file))
        if not said:
            failure.timestamp = int(time.time()) + after_s
        self.found.append(failure)
        return self

    def told(self) -> str:
        with pytest.raises(InputError) as error:
            launch._told(self.found, 3)
        return str(error.value)


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    """Give no ends yet."""
    return Ends(tmp_path)


def test_a_kill_comes_before_those_who_lost_the_killed(ends: Ends) -> None:
    ends.add(0, 76).add(2, 76).add(1, -9)
    assert ends.told().startswith("rank 1 of 3 (process 101) was killed by SIGKILL")


def test_a_reason_comes_before_the_kill_of_one_that_did_not_end(ends: Ends) -> None:
    """The launcher kills half a minute later what does not listen."""
    ends.add(1, 1, "image 5 is damaged").add(0, -9, after_s=30).add(2, 75)
    assert ends.told() == "rank 1 of 3 (process 101): image 5 is damaged"


def test_every_problem_is_named_with_its_rank(ends: Ends) -> None:
    ends.add(2, 1, "one\ntwo").add(0, 76)
    assert ends.told() == (
        "rank 2 of 3 (process 102): one\nrank 2 of 3 (process 102): two"
    )  # fmt: skip


def test_an_end_without_a_reason_points_to_what_was_said(ends: Ends) -> None:
    ends.add(0, 76).add(1, 1)
    assert ends.told() == "rank 1 of 3 (process 101): exit code 1; what it said stands above"


def test_ranks_that_were_all_asked_to_stop_have_stopped(ends: Ends) -> None:
    ends.add(0, 75, "stopped").add(1, -signal.SIGTERM).add(2, 75)
    assert launch._told(ends.found, 3) == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_launcher_that_was_asked_says_so_if_all_ranks_have_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    for rank in range(2):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"{rank}" / "error.json"))
        (tmp_path / f"{rank}").mkdir()
        assert report_to_launcher(InterruptedRun(number))
    assert launch._stopped(number, tmp_path, 2) == code
    with pytest.raises(InputError, match="before all of 3 processes had saved"):
        launch._stopped(number, tmp_path, 3)


def test_a_launcher_that_was_asked_tells_what_a_rank_could_not_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report_to_launcher(InputError("the state cannot be saved: No space left"))
    with pytest.raises(InputError, match="^the state cannot be saved: No space left$"):
        launch._stopped(signal.SIGTERM, tmp_path, 2)


def test_a_damaged_image_that_one_rank_reads_is_named_with_that_rank(tmp_path: Path) -> None:
    """In a real run of two processes, the other of which waits for it."""
    make_data(tmp_path, storage="jpg")
    beton = tmp_path / "train.beton"
    whole = beton.read_bytes()
    pointers = read_format(beton).offsets
    for image in range(len(pointers)):  # one that opening does not look at
        content = bytearray(whole)
        content[pointers[image] : pointers[image] + 2] = b"no"
        beton.write_bytes(content)
        with suppress(InputError):
            BetonReader(beton)
            break
    run = TinyRun(tmp_path, tmp_path / "r", run_settings("cnn3", processes=2))
    began = time.monotonic()
    said = run.finish(code=1)
    assert time.monotonic() - began < 40, "one rank waited for the other"
    assert "Traceback" not in said
    assert said.count("error: rank ") == 1
    assert f"train.beton: image {image} is" in said
