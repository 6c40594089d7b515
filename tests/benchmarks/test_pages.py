"""The tables of docs/performance.md are those of the records in benchmarks/results."""

import subprocess
import sys

import pytest

from benchmarks import pages
from benchmarks.common import replace_between, spread, table
from benchmarks.dynamic_page import ratio
from minet.core.files import read_json
from tests.helpers.tree import ROOT

DATA = ("prepare", "prepare light", "steps", "read jpg", "read raw", "growth", "start")


@pytest.mark.parametrize(
    "name", ["dynamic steps", "dynamic forms", "generated", *(f"data {part}" for part in DATA)]
)
def test_tables_of_the_page_equal_those_of_the_records(name: str) -> None:
    text = pages.tables(ROOT)[name]
    assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in (ROOT / pages.PAGE).read_text()


@pytest.mark.slow
def test_data_benchmark_runs_and_compares_pixels_with_the_reference(tmp_path) -> None:
    """Three parts, small; competitors that are not installed are recorded as failed."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.data",
        "--quick",
        "--out",
        str(tmp_path / "r.json"),
    ]
    command += ["--parts", "prepare", "read raw", "read jpg"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    record = read_json(tmp_path / "r.json")
    for group, name, max_difference in (
        ("prepare", "minet raw", 1),
        ("prepare", "DataLoader, Pillow", 0),
        ("read raw", "minet stream", 0),
        ("read raw", "minet resident", 0),
        ("read raw", "FFCV", 0),
        ("read jpg", "minet stream", 0),
        ("read jpg", "FFCV", 8),
    ):
        result = record[group][name]
        assert result["each_once"], name
        assert result["max_difference"] <= max_difference, name
        assert min(result["images_per_s"]) > 0, name
    assert "failed" in record["read jpg"]["LitData"] or record["read jpg"]["LitData"]["same_pixels"]
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_text_between_markers_is_replaced(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    replace_between(page, "x", r"new \1")
    assert page.read_text() == "a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="has the markers of y 0 times, not once"):
        replace_between(page, "y", "text")


def test_spread_ratio_and_table_are_formatted_as_documented() -> None:
    assert spread([3.0, 1.0, 1200.4]) == "3 (1-1,200)"
    assert ratio([3.0, 8.0, 10.0], [1.0, 4.0, 4.0]) == "2.50"
    assert table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
