"""The zoo's tables in markdown: every cell by hand, missing values, escapes, order."""

import copy
import json
import re
from typing import Any

import numpy as np
import pytest

from minet.augment.channels import CHANNEL_SETS
from minet.stats.comparison import compare
from minet.stats.intervals import accuracy_summary
from minet.zoo.table import channel_table, transposed, zoo_table

AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"
COMPARISON = {
    "row": "r003_resnet34",
    "difference": 0.02,
    "difference_low": -0.01,
    "difference_high": 0.05,
    "only_this": 24,
    "only_baseline": 20,
    "p": 0.25,
    "ratio": 0.984,
    "ratio_low": 0.911,
    "ratio_high": 1.056,
    "target_ratio": 0.9,
    "verdict": "yes",
    "p_holm": 0.5,
}


def row_of(**changes: Any) -> dict[str, Any]:
    """Return a row of zoo/comparison.json with the keys named changed."""
    row = {
        "report": "003",
        "title": "Task 2: cool model",
        "model": "cool",
        "test_images": 200,
        "accuracy": 0.87,
        "accuracy_low": 0.816,
        "accuracy_high": 0.9099,
        "accuracy_sd": None,
        "channels": {"RGB": {"accuracy": 0.87, "accuracy_low": 0.816, "accuracy_high": 0.91}},
        "cost": {"parameters": 1_112_527, "macs": 562_160_000, "input_px": 224},
        "published": {"source": "task 2, test acc table", "accuracy": 0.253},
        "note": "",
        "channels_line": None,
        "recipe": {"channels": "RGB"},
        "comparison": COMPARISON,
    }
    return copy.deepcopy(row | changes)


def record_of(**rows: dict[str, Any]) -> dict[str, Any]:
    """Return a record of rows by name."""
    return {"budget": "smoke", "seeds": [0], "rows": rows}


def cells(table: str) -> list[dict[str, str]]:
    """Parse a table as GitHub does: a line per row, each as column -> text."""
    header, marks, *lines = (
        [cell.strip() for cell in line.removeprefix("| ").removesuffix(" |").split(" | ")]
        for line in table.split("\n")
    )
    assert all(set(mark) <= set("-:") for mark in marks)
    assert len(marks) == len(header)
    return [dict(zip(header, line, strict=True)) for line in lines]


def cells_of(**changes: Any) -> dict[str, str]:
    """Return the only line of the table of one row."""
    (line,) = cells(zoo_table(record_of(only=row_of(**changes))))
    return line


def test_a_whole_table_to_the_byte() -> None:
    rows = {"r003_cool": row_of(), "r003_resnet34": row_of(model="resnet34", comparison=None)}
    assert zoo_table(record_of(**rows)).split("\n") == [
        (
            "| row | report | model | published | ours | baseline | difference | p | ratio "
            f"| {AT_LEAST} 90 %? | parameters | MACs (M) |"
        ),
        "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        (
            "| `r003_cool` | 003 | cool | 0.253 | 0.870 (0.816\N{EN DASH}0.910) | r003_resnet34 "
            "| +0.020 (\N{MINUS SIGN}0.010 to +0.050) | 0.500 | 0.98 (0.91 to 1.06) | yes "
            "| 1,112,527 | 562.2 |"
        ),
        (
            "| `r003_resnet34` | 003 | resnet34 | 0.253 | 0.870 (0.816\N{EN DASH}0.910) "
            "|  |  |  |  |  | 1,112,527 | 562.2 |"
        ),
    ]


@pytest.mark.parametrize(
    ("published", "cell"),
    [
        ({"accuracy": 0.29, "val_accuracy": 0.4, "kaggle": 0.5}, "0.29"),
        ({"accuracy": 0.733238434163701}, "0.7332"),
        ({"accuracy": 0.6}, "0.6"),
        ({"accuracy": 0.0}, "0.0"),
        ({"kaggle": 0.92571, "val_accuracy": 0.841945}, "val 0.8419"),
        ({"accuracy": None, "val_accuracy": None, "kaggle": 0.92571}, "kaggle 0.9257"),
        ({"accuracy": None, "train_accuracy": 0.99, "loss": 1.5}, "-"),
        ({}, "-"),
    ],
)
def test_published_accuracy_has_at_most_four_digits_and_its_split(
    published: dict[str, float | None], cell: str
) -> None:
    assert cells_of(published=published)["published"] == cell


def test_several_seeds_show_their_standard_deviation() -> None:
    cell = cells_of(accuracy_sd=0.0123)["ours"]
    assert cell == "0.870 ± 0.012 (0.816\N{EN DASH}0.910)"
    assert "± 0.000 (" in cells_of(accuracy_sd=0.0)["ours"]


@pytest.mark.parametrize(
    ("p_holm", "cell"),
    [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.0456, "0.046"), (1.0, "1.000")],
)
def test_p_is_the_adjusted_p_value(p_holm: float, cell: str) -> None:
    assert cells_of(comparison=COMPARISON | {"p": 0.7, "p_holm": p_holm})["p"] == cell


@pytest.mark.parametrize(
    ("bounds", "cell"),
    [
        ((-0.25, -0.5, -0.125), "-0.250 (-0.500 to -0.125)"),
        ((0.0, 0.0, 0.0), "+0.000 (+0.000 to +0.000)"),
        # what rounds to zero is positive
        ((-0.0001, -0.0022, 0.0022), "+0.000 (-0.002 to +0.002)"),
    ],
)
def test_a_difference_has_its_sign(bounds: tuple[float, float, float], cell: str) -> None:
    names = ("difference", "difference_low", "difference_high")
    comparison = COMPARISON | dict(zip(names, bounds, strict=True))
    assert cells_of(comparison=comparison)["difference"] == cell.replace("-", "\N{MINUS SIGN}")


def test_a_ratio_without_an_upper_bound_or_without_a_value() -> None:
    open_end = COMPARISON | {"ratio_high": None, "verdict": "cannot tell with 200 images"}
    line = cells_of(comparison=open_end)
    assert line["ratio"] == "0.98 (0.91 to -)"
    assert line[f"{AT_LEAST} 90 %?"] == "cannot tell with 200 images"
    verdict = "cannot tell: the baseline has no correct prediction"
    no_ratio = {"ratio": None, "ratio_low": None, "ratio_high": None, "verdict": verdict}
    line = cells_of(comparison=COMPARISON | no_ratio)
    assert (line["ratio"], line[f"{AT_LEAST} 90 %?"]) == ("-", verdict)


def test_without_a_target_ratio_the_ratio_is_empty() -> None:
    rows = {
        "with": row_of(),
        "without": row_of(comparison=COMPARISON | {"target_ratio": None, "verdict": None}),
    }
    line = cells(zoo_table(record_of(**rows)))[1]
    assert (line["ratio"], line[f"{AT_LEAST} 90 %?"]) == ("", "")
    assert line["difference"]
    assert line["baseline"] == "r003_resnet34"


def test_one_target_ratio_is_in_the_heading() -> None:
    assert cells_of(comparison=COMPARISON | {"target_ratio": 0.07})[f"{AT_LEAST} 7 %?"] == "yes"
    assert cells_of(comparison=COMPARISON | {"target_ratio": 0.995})[f"{AT_LEAST} 99.5 %?"] == "yes"
    assert cells_of(comparison=COMPARISON | {"target_ratio": None, "verdict": None})["target"] == ""
    assert cells_of(comparison=None)["target"] == ""


def test_several_target_ratios_are_in_the_cells() -> None:
    rows = {
        "a": row_of(),
        "b": row_of(comparison=COMPARISON | {"target_ratio": 0.8, "verdict": "no"}),
        "c": row_of(comparison=None),
    }
    lines = cells(zoo_table(record_of(**rows)))
    assert [line["target"] for line in lines] == [
        f"{AT_LEAST} 90 %: yes",
        f"{AT_LEAST} 80 %: no",
        "",
    ]


def test_costs() -> None:
    line = cells_of(cost={"parameters": 999, "macs": 11_558_849_999})
    assert (line["parameters"], line["MACs (M)"]) == ("999", "11558.8")


def test_rows_have_the_order_of_the_record() -> None:
    names = ["r2", "r0", "r1"]
    channels = {"RGB": 0.3}
    record = record_of(**{name: row_of(published={"channels": channels}) for name in names})
    for table in (zoo_table(record), channel_table(record)):
        assert [line["row"] for line in cells(table)] == [f"`{name}`" for name in names]


def test_accuracies_by_channel_set_are_next_to_the_published_ones() -> None:
    ours = {
        name: {"accuracy": accuracy, "accuracy_low": 0.0, "accuracy_high": 1.0}
        for name, accuracy in {"R": 0.0, "RGB": 0.3104, "GB": 0.25}.items()
    }
    published = {"source": "a table", "channels": {"GB": 0.1, "RGB": 0.29, "RG": 0.0}}
    table = channel_table(record_of(r001_dwg=row_of(channels=ours, published=published)))
    assert table.split("\n") == [
        "| row | RGB | RG | GB | RB | R | G | B |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| `r001_dwg` | 0.29 / 0.310 | 0.0 / - | 0.1 / 0.250 |  | - / 0.000 |  |  |",
    ]


@pytest.mark.parametrize(
    ("sets", "published", "shown"),
    [
        (("RGB",), {}, False),
        (("RGB",), {"accuracy": 0.5}, False),
        (("RGB",), {"channels": None}, False),
        (("RGB",), {"channels": {}}, False),
        (("RG",), {"channels": {"RG": 0.2}}, True),
        (("RGB", "G"), {}, False),  # the record has the sets of every row
    ],
)
def test_only_rows_about_channels_are_in_the_channel_table(
    sets: tuple[str, ...], published: dict[str, Any], *, shown: bool
) -> None:
    ours = {name: {"accuracy": 0.5} for name in sets}
    table = channel_table(record_of(row=row_of(channels=ours, published=published)))
    assert len(cells(table)) == shown


def test_rows_that_share_a_line_fill_the_set_that_each_was_trained_on() -> None:
    every = {name: {"accuracy": 0.5} for name in CHANNEL_SETS}

    def of(channels: str, line: str, ours: dict[str, Any]) -> dict[str, Any]:
        published = {"channels": {channels: 0.3}}
        changes = {"channels_line": line, "channels": ours, "published": published}
        return row_of(**changes, recipe={"channels": channels})

    alone = of("RGB", "one for all", every)
    rows = {
        "rgb": of("RGB", "one model per set", every),
        "alone": alone,
        "r": of("R", "one model per set", {"R": {"accuracy": 0.25}}),
    }
    each, one = cells(channel_table(record_of(**rows)))
    assert each == dict.fromkeys(CHANNEL_SETS, "") | {
        "row": "one model per set", "RGB": "0.3 / 0.500", "R": "0.3 / 0.250",
    }  # fmt: skip
    assert one == dict.fromkeys(CHANNEL_SETS, "- / 0.500") | {
        "row": "one for all", "RGB": "0.3 / 0.500",
    }  # fmt: skip


def test_a_pipe_in_a_name_does_not_end_its_cell() -> None:
    comparison = COMPARISON | {"row": "base|line"}
    table = zoo_table(
        record_of(**{"a|b": row_of(report="0|3", model="x|y", comparison=comparison)})
    )
    assert r"| `a\|b` | 0\|3 | x\|y |" in table
    assert r"| base\|line |" in table
    channels = channel_table(record_of(**{"a|b": row_of(published={"channels": {"R": 0.1}})}))
    assert r"| `a\|b` |" in channels


def test_the_same_record_gives_the_same_bytes_and_is_not_changed() -> None:
    record = record_of(a=row_of(), b=row_of(comparison=None, published={"channels": {"R": 0.1}}))
    before = json.dumps(record)
    for table in (zoo_table, channel_table):
        # as it is read from the file
        assert table(record) == table(json.loads(before))
    assert json.dumps(record) == before


def test_the_table_takes_the_records_of_comparisons() -> None:
    """Records of accuracy_summary and compare, of several seeds, through JSON."""
    rng = np.random.default_rng(0)
    this, baseline = rng.random((2, 60)) < 0.8, rng.random((2, 60)) < 0.7
    comparison = compare(this, baseline, target_ratio=0.9) | {"row": "base", "p_holm": 0.2}
    row = row_of(**accuracy_summary(this), comparison=comparison)
    (line,) = cells(zoo_table(json.loads(json.dumps(record_of(this=row)))))
    assert line["ours"].startswith(f"{this.mean():.3f} ± ")
    assert line["difference"].startswith(f"{this.mean() - baseline.mean():+.3f} (")
    assert line["ratio"].startswith(f"{this.mean() / baseline.mean():.2f} (")
    assert line[f"{AT_LEAST} 90 %?"] == comparison["verdict"]


def test_a_transposed_table_has_a_column_per_row() -> None:
    lines = transposed(record_of(a=row_of(comparison=None), b=row_of())).split("\n")
    assert lines[0].split() == ["row", "a", "b"]
    assert re.fullmatch(r"baseline +r003_resnet34", lines[5])
    assert re.fullmatch(r"MACs \(M\) +562.2 +562.2", lines[-1])
    assert len({line.rindex(line.split()[-1]) for line in (lines[0], lines[5], lines[-1])}) == 1
