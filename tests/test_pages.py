"""Pages show the records of benchmarks/results, and nothing else."""

import pytest
from closure import ROOT

from benchmarks import pages
from benchmarks.common import put_between, spread, table


@pytest.mark.parametrize("name", ["dynamic steps", "dynamic forms", "generated"])
def test_page_of_speed_shows_the_records(name: str) -> None:
    text = pages.tables(ROOT)[name]
    assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in (ROOT / pages.PAGE).read_text()


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
