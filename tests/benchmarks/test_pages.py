"""Pages show the records of benchmarks/results, and nothing else."""

import subprocess
import sys

import pytest

from benchmarks import pages
from benchmarks.common import put_between, spread, table
from minet.core.files import read_json
from tests.helpers.tree import ROOT

DATA = ("prepare", "prepare light", "steps", "read jpg", "read raw", "growth", "start")


@pytest.mark.parametrize(
    "name", ["dynamic steps", "dynamic forms", "generated", *(f"data {part}" for part in DATA)]
)
def test_page_of_speed_shows_the_records(name: str) -> None:
    text = pages.tables(ROOT)[name]
    assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in (ROOT / pages.PAGE).read_text()


@pytest.mark.slow
def test_the_benchmark_of_the_data_path_runs_and_holds_pixels_to_the_reference(tmp_path) -> None:
    """Three parts of it, small; peers that are not installed here are said to have failed."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.data",
        "--quick",
        "--out",
        str(tmp_path / "r.json"),
    ]
    command += ["--parts", "prepare", "read raw", "read jpg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "r.json")
    for group, name, most in (
        ("prepare", "minet raw", 1),
        ("prepare", "DataLoader, Pillow", 0),
        ("read raw", "minet stream", 0),
        ("read raw", "minet resident", 0),
        ("read raw", "FFCV", 0),
        ("read jpg", "minet stream", 0),
        ("read jpg", "FFCV", 8),
    ):
        found = record[group][name]
        assert found["each_once"], name
        assert found["max_difference"] <= most, name
        assert min(found["images_per_s"]) > 0, name
    assert "failed" in record["read jpg"]["LitData"] or record["read jpg"]["LitData"]["same_pixels"]
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_text_takes_its_place_between_marks(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    put_between(page, "x", r"new \1")
    assert page.read_text() == "a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="has 0 places for y, not one"):
        put_between(page, "y", "text")


def test_cells_and_spread_are_what_the_pages_say() -> None:
    assert spread([3.0, 1.0, 1200.4]) == "3 (1-1,200)"
    assert pages.ratio([3.0, 8.0, 10.0], [1.0, 4.0, 4.0]) == "2.50"
    assert table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
