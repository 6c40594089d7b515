"""The record of rows: comparisons with baselines, and the committed tables."""

import json
from typing import Any

import pytest
import yaml

from minet.core.errors import InputError
from minet.core.files import read_json
from minet.models.registry import MODELS, reinitialized_layers
from minet.params import Params, check_params
from minet.zoo.config import RowSettings, Zoo
from minet.zoo.record import RowOutcome, SeedOutcome, zoo_record
from minet.zoo.rows import check_zoo, row_settings
from minet.zoo.table import channel_table, table_cells, zoo_table
from tests.helpers.tree import ROOT


@pytest.fixture
def params(raw_params: dict[str, Any]) -> Params:
    """Return the settings of params.yaml."""
    checked, problems = check_params(raw_params, MODELS)
    assert checked is not None, problems
    return checked


@pytest.fixture
def raw() -> dict[str, Any]:
    """Return zoo/params.yaml as plain data."""
    plain: dict[str, Any] = yaml.safe_load((ROOT / "zoo/params.yaml").read_text())
    return plain


@pytest.fixture
def zoo(raw, params) -> Zoo:
    checked, problems = check_zoo(raw, params, MODELS)
    assert checked is not None
    assert not problems
    return checked


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return read_json(ROOT / "zoo/comparison.json")


def outcome(settings: RowSettings, correct: list[bool], paths: list[str]) -> RowOutcome:
    scores = {"accuracy": 0.5, "loss": 1.0, "top5": 1.0, "precision": 0.5, "recall": 0.5}
    costs = {"parameters": 7, "parameter_mb": 0.1, "macs": 9, "flops": 18, "activation_mb": 0.1}
    seed = SeedOutcome(
        train={"best_epoch": 1},
        test=scores | {"f1": 0.5, "macro_f1": 0.5},
        channels={"RGB": {"accuracy": 0.5}},
        fingerprint="f",
        paths=paths,
        correct=correct,
    )
    return RowOutcome(
        settings=settings,
        cost=costs | {"depth": 1, "input_px": 224},
        sources={"a": "b"},
        num_classes=2,
        seeds={0: seed},
    )


def test_rows_are_compared_with_their_baselines_on_the_same_images(zoo, params) -> None:
    names = ("r003_resnet34", "r003_cool", "r003_parallel")
    images = [f"{number}.jpg" for number in range(8)]
    predictions = ([True] * 8, [True] * 4 + [False] * 4, [True] * 8)
    rows = {}
    for name, correct in zip(names, predictions, strict=True):
        model = zoo.rows[name].model
        settings = row_settings(name, zoo, params, MODELS[model], reinitialized_layers(model))
        rows[name] = outcome(settings, correct, images)
    record = zoo_record("smoke", rows)
    assert list(record["rows"]) == list(names)
    assert record["rows"]["r003_resnet34"]["comparison"] is None
    compared = record["rows"]["r003_cool"]["comparison"]
    assert compared["row"] == "r003_resnet34"
    assert (compared["difference"], compared["ratio"]) == (-0.5, 0.5)
    assert compared["p"] == 0.125
    assert compared["p_holm"] == 0.25  # of two comparisons, the smaller one twice
    assert record["rows"]["r003_cool"]["published"]["accuracy"] == 0.253
    published, used = (record["rows"]["r003_cool"][k] for k in ("recipe_as_published", "recipe"))
    assert (published["epochs"], used["epochs"]) == (10, 2)
    assert published.keys() == {"epochs", "batch_size", "input_px"}
    json.dumps(record, allow_nan=False)
    alone = zoo_record("smoke", {name: rows[name] for name in names[1:]})["rows"]
    assert alone["r003_cool"]["comparison"] is None  # its baseline is not selected
    rows["r003_cool"] = outcome(rows["r003_cool"].settings, predictions[1], images[::-1])
    with pytest.raises(InputError, match="r003_cool and r003_resnet34 were tested on different"):
        zoo_record("smoke", rows)


def test_the_committed_tables_are_those_of_the_rows_in_the_settings(zoo, record) -> None:
    assert list(record["rows"]) == list(zoo.rows)
    assert (record["budget"], record["seeds"]) == (zoo.budget, zoo.seeds)
    table = (ROOT / "zoo/table.md").read_text()
    assert zoo_table(record) in table
    assert channel_table(record) in table


def test_the_published_column_has_the_figures_of_the_settings(raw, record) -> None:
    cells = {line["row"]: line["published"] for line in table_cells(record)}
    for name, row in raw["rows"].items():
        printed = row.get("published", {})
        assert record["rows"][name]["published"] == printed
        accuracies = [key for key in ("accuracy", "val_accuracy", "kaggle") if key in printed]
        if accuracies:
            assert float(cells[name].split()[-1]) == round(printed[accuracies[0]], 4)
            assert (accuracies[0] == "accuracy") == (" " not in cells[name])
        else:
            assert cells[name] == "-"
