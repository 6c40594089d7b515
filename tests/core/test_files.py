"""Atomic writes, records and digests."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from minet.core.errors import InputError
from minet.core.files import (
    atomic_dir,
    atomic_write,
    file_digest,
    read_csv,
    read_json,
    write_csv,
    write_json,
)


def put_file(folder: Path) -> None:
    folder.write_text("new")


def put_folder(folder: Path) -> None:
    (folder / "new.txt").write_text("new")


FILE_AND_FOLDER = pytest.mark.parametrize(
    ("atomic", "put"), [(atomic_write, put_file), (atomic_dir, put_folder)]
)
Atomic = Callable[[Path], AbstractContextManager[Path]]
Put = Callable[[Path], None]


def names(folder: Path) -> list[str]:
    """Return everything below a folder, as sorted relative paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def put_and_fail(atomic: Atomic, put: Put, path: Path) -> None:
    with atomic(path) as partial:
        put(partial)
        raise ZeroDivisionError


def fail_half_way(atomic: Atomic, put: Put, path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        put_and_fail(atomic, put, path)


@FILE_AND_FOLDER
def test_a_failed_first_write_leaves_nothing(atomic: Atomic, put: Put, tmp_path: Path) -> None:
    fail_half_way(atomic, put, tmp_path / "out")
    assert names(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    fail_half_way(atomic_write, put_file, path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (path / "in").mkdir(parents=True)
    (path / "in/old.txt").write_text("old")
    fail_half_way(atomic_dir, put_folder, path)
    assert names(tmp_path) == ["out", "out/in", "out/in/old.txt"]
    assert (path / "in/old.txt").read_text() == "old"


@FILE_AND_FOLDER
def test_the_old_output_stays_until_the_new_is_complete(
    atomic: Atomic, put: Put, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    with atomic(path) as partial:
        put(partial)
        assert not path.exists()
    before = path.stat().st_ino
    with atomic(path) as partial:
        put(partial)
        assert path.stat().st_ino == before
    assert path.stat().st_ino != before


def test_a_hard_link_to_the_old_file_keeps_its_bytes(tmp_path: Path) -> None:
    """DVC may link an output to its cache; writing to the link would corrupt the cache."""
    path, cached = tmp_path / "out.json", tmp_path / "cached"
    write_json(path, {"value": 1})
    os.link(path, cached)
    write_json(path, {"value": 2})
    assert read_json(cached) == {"value": 1}
    assert read_json(path) == {"value": 2}


def test_the_partial_file_of_a_killed_run_does_not_get_into_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_text("left over")
    with atomic_write(tmp_path / "out") as partial, partial.open("a") as file:
        file.write("new")
    assert (tmp_path / "out").read_text() == "new"


def test_files_of_a_killed_or_old_run_do_not_get_into_the_new_folder(
    tmp_path: Path,
) -> None:
    for folder in ("out", "out.partial"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "left-over.txt").touch()
    with atomic_dir(tmp_path / "out") as partial:
        put_folder(partial)
    assert names(tmp_path) == ["out", "out/new.txt"]


@FILE_AND_FOLDER
def test_parent_folders_are_created(atomic: Atomic, put: Put, tmp_path: Path) -> None:
    with atomic(tmp_path / "a/b/out") as partial:
        put(partial)
    assert (tmp_path / "a/b/out").exists()
    assert names(tmp_path / "a/b")[0] == "out"


def test_a_file_is_flushed_to_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut after the rename could leave an empty file under the final name."""
    path = tmp_path / "out"
    synced: list[tuple[int, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_in_json_are_rejected(value: float, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"epochs": [{"loss": value}]})
    assert read_json(path) == {"loss": 1.0}
    assert names(tmp_path) == ["out.json"]


def test_json_keeps_digits_unicode_and_the_order_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    record = {"z": 0.1 + 0.2, "a": 1 / 3, "größe": "猫"}
    write_json(path, record)
    assert list(read_json(path).items()) == list(record.items())
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": 0.30000000000000004,\n')
    assert text.endswith('"größe": "猫"\n}\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "in.json: not a JSON record: Expecting"),
        (b"", "in.json: not a JSON record: Expecting"),
        (b"\xff\xfe\x00", "in.json: not a JSON record: .*utf-8"),
        (b"[1, 2]", "in.json: not a JSON record but a list"),
        (b"3", "in.json: not a JSON record but a int"),
    ],
)
def test_json_that_is_not_a_record_is_an_error_with_its_path(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(path)


@pytest.mark.parametrize("read", [read_json, read_csv])
def test_a_missing_record_is_an_error_with_its_path_and_a_fix(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"not-there: no such file; `dvc repro` makes it"):
        read(tmp_path / "not-there")


def test_csv_keeps_digits_quotes_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    awkward = 'a "cat", 猫\nand more'
    write_csv(path, ("name", "loss"), [(awkward, 1 / 3), ("b", 0.1 + 0.2)])
    rows = read_csv(path)
    assert [row["name"] for row in rows] == [awkward, "b"]
    assert [float(row["loss"]) for row in rows] == [1 / 3, 0.1 + 0.2]
    assert b"\r" not in path.read_bytes()


def test_an_error_in_the_rows_leaves_the_old_csv(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_csv(path, ["a"], [[1]])

    def rows() -> Iterator[list[int]]:
        yield [2]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["a"], rows())
    assert path.read_text() == "a\n1\n"
    assert names(tmp_path) == ["out.csv"]


def test_the_digest_covers_all_bytes(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    path = tmp_path / "data"
    path.write_bytes(data)
    assert file_digest(path) == hashlib.sha256(data).hexdigest()
