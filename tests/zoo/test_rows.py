"""The rows of the zoo: checked, merged over the defaults, held against one another."""

import json
import os
import re
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.published import PUBLISHED
from minet.core.errors import InputError
from minet.models.registry import MODELS, reinitialized_layers
from minet.params import Params, check_params
from minet.zoo.config import RowSettings, Zoo
from minet.zoo.record import RowOutcome, SeedOutcome, zoo_record
from minet.zoo.rows import check_zoo, row_settings, variant_of, variant_settings, with_baselines
from minet.zoo.rows import run as zoo_run
from minet.zoo.run import changed_rows, duplicate_runs
from minet.zoo.table import channel_table, table_cells, zoo_table
from stages.code import digests
from stages.rows import _run_problems
from tests.helpers.tree import ROOT


@pytest.fixture
def params(raw_params: dict[str, Any]) -> Params:
    """Give the root's settings, valid."""
    checked, problems = check_params(raw_params, MODELS)
    assert checked is not None, problems
    return checked


@pytest.fixture
def raw() -> dict[str, Any]:
    """Give zoo/params.yaml as it is committed, as plain data."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "zoo/params.yaml").read_text())
    return found


def checked(raw: dict[str, Any], params: Params) -> Zoo:
    zoo, problems = check_zoo(raw, params, MODELS)
    assert zoo is not None
    assert not problems
    return zoo


def settings_of(name: str, zoo: Zoo, params: Params) -> RowSettings:
    model = zoo.rows[name].model
    return row_settings(name, zoo, params, MODELS[model], reinitialized_layers(model))


def test_every_report_has_its_rows(raw, params) -> None:
    rows = checked(raw, params).rows
    counts = dict.fromkeys(("000", "001", "002", "003", "004", "ours"), 0)
    for name, row in rows.items():
        counts[row.report] += 1
        assert name.startswith("ours_" if row.report == "ours" else f"r{row.report}_")
        assert settings_of(name, checked(raw, params), params).train.model == row.model
    assert counts == {"000": 6, "001": 7, "002": 4, "003": 20, "004": 4, "ours": 3}


def test_a_row_is_the_defaults_under_its_recipe_under_its_own(raw, params) -> None:
    zoo = checked(raw | {"budget": "published"}, params)
    resnet, dynamic = (
        settings_of(f"r000_{name}", zoo, params).train.train
        for name in ("resnet34", "dynamic_resnet18")
    )
    assert (resnet.epochs, dynamic.epochs) == (10, 30)
    assert resnet.batch_size == dynamic.batch_size == 128
    assert resnet.nesterov == params.train.nesterov
    assert resnet.augment.crop_scale == (1, 1)
    assert resnet.augment.crop_ratio == params.train.augment.crop_ratio


def test_a_row_computes_with_the_zoo_s_threads_or_its_own(raw, params) -> None:
    """Whoever starts it, with however many cores: sums are rounded by their number."""
    raw["rows"]["r003_cool"] |= {"train": {"threads": 4}, "evaluate": {"threads": 3}}
    zoo = checked(raw | {"threads": 2}, params)
    found = {
        name: (row.train.train.threads, row.evaluate.threads)
        for name in ("r003_cool", "r003_cnn3")
        if (row := settings_of(name, zoo, params))
    }
    assert found == {"r003_cool": (4, 3), "r003_cnn3": (2, 2)}


def test_rows_come_with_their_baselines_in_the_zoo_s_order(raw, params) -> None:
    zoo = checked(raw, params)
    assert with_baselines(zoo, ["r003_cool", "r000_resnet18"]) == [
        "r000_resnet18", "r003_resnet34", "r003_cool",
    ]  # fmt: skip
    with pytest.raises(InputError, match="'r003_col' is no row; did you mean r003_cool"):
        with_baselines(zoo, ["r003_cool", "r003_col"])


def test_the_row_that_the_docs_add_is_one(raw, params) -> None:
    text = (ROOT / "docs/zoo.md").read_text().partition("## A row of your own\n")[2]
    (block,) = re.findall(r"\n((?:    .*\n)+)", text.partition("It goes to")[0])
    raw["rows"] |= yaml.safe_load(textwrap.dedent(block))
    zoo = checked(raw | {"budget": "published"}, params)
    settings = settings_of("mine", zoo, params)
    assert settings.train.train.epochs == 100
    assert settings.train.arguments == {"growth": 48}
    assert not list(_run_problems({"mine": settings}, params))


def test_a_mistake_is_told_before_dvc_reads_it(
    raw, raw_params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params))
    (tmp_path / "zoo/params.yaml").write_text(yaml.safe_dump(raw | {"seeds": 3}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo_run, "_dvc", lambda _: pytest.fail("DVC was run"))
    for run in (
        lambda: zoo_run.run_zoo(2, 2),
        lambda: zoo_run.run_zoo_on_ray("auto", 1, None),
    ):
        with pytest.raises(InputError, match=r"zoo/params.yaml: seeds is 3; input should be"):
            run()


def test_a_budget_lies_over_the_recipe_and_not_over_the_cost(raw, params) -> None:
    zoo = checked(raw, params)
    assert zoo.budget == "smoke"
    row = settings_of("r002_resnet18_pretrained", zoo, params)
    assert (row.train.train.input_px, row.train.weights, row.train.reinitialized) == (
        64,
        "random",
        (),
    )
    assert row.cost.input_px == 512
    assert settings_of("r001_resnet34_flatten", zoo, params).train.train.input_px == 224
    zoo = checked(raw | {"budget": "published"}, params)
    row = settings_of("r002_resnet18_pretrained", zoo, params)
    assert (row.train.train.input_px, row.train.weights) == (512, "imagenet")
    assert settings_of("r001_dwg_densenet121", zoo, params).train.reinitialized


def test_a_model_of_fewer_planes_is_costed_with_them(raw, params) -> None:
    zoo = checked(raw, params)
    assert settings_of("r003_slice_rg", zoo, params).cost.channels == 2
    assert settings_of("r003_sigmoid_b", zoo, params).cost.channels == 1
    assert settings_of("r003_cnn3", zoo, params).cost.channels == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channel_shuffle": 0.5}, "evaluate.channel_shuffle is 0.5; must be 0 where channels"),
        (
            {"missing_channels": "slice"},
            "evaluate.missing_channels is 'slice'; models.cool: does not take batches of",
        ),
    ],
)
def test_what_a_row_could_not_be_scored_on_is_refused(raw, params, change, said: str) -> None:
    name = "r003_slice_rg" if "channel_shuffle" in change else "r003_cool"
    raw["rows"][name]["evaluate"] = change
    rows = {name: settings_of(name, checked(raw, params), params)}
    (problem, *_) = _run_problems(rows, params)
    assert problem.startswith(f"rows.{name}: {said}")


def test_a_variant_has_data_of_its_own(raw, params) -> None:
    zoo = checked(raw, params)
    assert variant_of(zoo.rows["r002_resnet50"]) == "five_512"
    assert variant_of(zoo.rows["r000_resnet18"]) is None
    variant = variant_settings("five_512", zoo, params)
    assert (variant.sample.classes, variant.data.layout) == (5, "csv")
    assert (variant.beton.crop_px, variant.beton.storage) == (512, "jpg")
    assert variant.beton.jpeg_quality == params.beton.jpeg_quality


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("budget", "smok", "budget is 'smok'; did you mean smoke? allowed: published, smoke"),
        ("seeds", [1, 1], "seeds is [1, 1]; must be distinct"),
        ("seeds", [], "seeds is []; list should have at least 1 item"),
        ("seeds", 3, "seeds is 3; input should be a valid array"),
        ("threads", 0, "threads is 0; input should be greater than or equal to 1"),
        ("rows.mine-1", {}, "rows.mine-1 is 'mine-1'; must be of small letters, digits and"),
        ("rows.mine", {"report": "ours"}, "rows.mine.data is missing"),
        ("rows.r003_cool.model", "cooll", "rows.r003_cool.model is 'cooll'; did you mean cool?"),
        ("rows.r003_cool.recipe", "report_3", "rows.r003_cool.recipe is 'report_3'; did you mean"),
        ("rows.r003_cool.data", "data/zoo/six", "rows.r003_cool.data is 'data/zoo/six'; did you"),
        ("rows.r003_cool.initial", "imagenet", "rows.r003_cool.initial is 'imagenet'; did you"),
        ("rows.r003_cool.baseline", "r003_cool", "baseline is 'r003_cool'; did you mean"),
        ("rows.r003_cool.baseline", None, "rows.r003_cool.rule is 0.9; must have a baseline"),
        ("rows.r003_cool.baseline", "r002_resnet18", "must be 'data', the same test images"),
        ("rows.r003_cool.train", {"epoch": 3}, "rows.r003_cool.train.epoch is not a setting; did"),
        ("rows.r003_cool.train", {"lr": -1.0}, "rows.r003_cool.train.lr is -1.0; input should"),
        (
            "rows.r003_cool.evaluate",
            {"missing_channels": "x"},
            "rows.r003_cool.evaluate.missing_channels is 'x'",
        ),
        ("rows.r003_cool.budgets", {"big": {}}, "rows.r003_cool.budgets.big is no budget"),
        ("rows.r003_cool.published", {"acuracy": 0.1}, "acuracy is not a setting; did you mean"),
        ("rows.r003_cool.published", {"accuracy": 25.3}, "published.accuracy is 25.3; input"),
        ("recipes.report_000.lr", "fast", "recipes.report_000.lr is 'fast'; input should be"),
        ("budgets.smoke.train", {"epochs": 0}, "budgets.smoke.train.epochs is 0; input should"),
        ("variants.five_512.beton", {"crop_px": 9999}, "variants.five_512.beton.crop_px is 9999"),
        ("initials.imagenet_resnet18", "resnet81", "initials.imagenet_resnet18 is 'resnet81'"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(
    raw, params, place: str, value: object, said: str
) -> None:
    *sections, key = place.split(".")
    section = raw
    for name in sections:
        section = section[name]
    section[key] = value
    _, problems = check_zoo(raw, params, MODELS)
    assert any(said in problem for problem in problems), problems


def test_published_costs_are_those_of_the_table_of_costs(raw, params) -> None:
    """What docs/costs.md explains, figure by figure, is what the rows say was printed."""
    rows = checked(raw, params).rows.values()
    for figure in PUBLISHED:
        of_model = [r for r in rows if r.report == figure.report and r.model == figure.model]
        printed = {
            re.sub(r"[\s()M%G]", "", value)
            for row in of_model
            for value in row.published.cost.values()
        }
        assert figure.printed in printed, figure


def test_code_of_a_model_is_in_the_digests_of_its_rows_alone(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    cool, rrdb = (Path(f"minet/models/{name}.py") for name in ("cool", "rrdb"))
    assert str(cool) in digests("train", cool)
    assert str(cool) not in digests("train", rrdb)
    assert {"stages/train.py", "minet/train/loop.py", "minet/nn/layers.py"} <= digests(
        "train", rrdb
    ).keys()
    assert "minet/train/loop.py" not in digests("cost", rrdb)
    assert not any("zoo" in file for file in digests("train", rrdb))


def outcome(settings: RowSettings, hits: list[bool], paths: list[str]) -> RowOutcome:
    scores = {"accuracy": 0.5, "loss": 1.0, "top5": 1.0, "precision": 0.5, "recall": 0.5}
    costs = {"parameters": 7, "parameter_mb": 0.1, "macs": 9, "flops": 18, "activation_mb": 0.1}
    seed = SeedOutcome(
        train={"best_epoch": 1},
        test=scores | {"f1": 0.5, "macro_f1": 0.5},
        channels={"RGB": {"accuracy": 0.5}},
        fingerprint="f",
        paths=paths,
        hits=hits,
    )
    return RowOutcome(settings, costs | {"depth": 1, "input_px": 224}, {"a": "b"}, 2, {0: seed})


def test_rows_are_held_against_their_baselines_on_the_same_images(raw, params) -> None:
    zoo = checked(raw, params)
    names = ("r003_resnet34", "r003_cool", "r003_parallel")
    images = [f"{number}.jpg" for number in range(8)]
    hits = ([True] * 8, [True] * 4 + [False] * 4, [True] * 8)
    rows = {
        name: outcome(settings_of(name, zoo, params), found, images)
        for name, found in zip(names, hits, strict=True)
    }
    record = zoo_record("smoke", rows)
    assert list(record["rows"]) == list(names)
    assert record["rows"]["r003_resnet34"]["against"] is None
    against = record["rows"]["r003_cool"]["against"]
    assert (against["row"], against["difference"], against["ratio"]) == ("r003_resnet34", -0.5, 0.5)
    assert against["p"] == 0.125
    assert against["p_holm"] == 0.25  # of two comparisons, the smaller one twice
    assert record["rows"]["r003_cool"]["published"]["accuracy"] == 0.253
    published, used = (record["rows"]["r003_cool"][k] for k in ("recipe_as_published", "recipe"))
    assert (published["epochs"], used["epochs"]) == (10, 2)
    assert published.keys() == {"epochs", "batch_size", "input_px"}
    json.dumps(record, allow_nan=False)
    alone = zoo_record("smoke", {name: rows[name] for name in names[1:]})["rows"]
    assert alone["r003_cool"]["against"] is None  # its baseline was not asked for
    rows["r003_cool"] = outcome(rows["r003_cool"].settings, hits[1], images[::-1])
    with pytest.raises(InputError, match="r003_cool and r003_resnet34 were tested on different"):
        zoo_record("smoke", rows)


def test_what_is_not_up_to_date_is_sorted_by_row_and_stage() -> None:
    place = "zoo/dvc.yaml"
    names = ("cost@a", "evaluate@a-0", "train@a-0", "train@b-1", "cost@c", "compare", "inputs@a")
    status = {f"{place}:{name}": [] for name in names} | {"train": [], "dvc.yaml:cost": []}
    assert changed_rows(status) == {
        "a-0": [f"{place}:{name}" for name in ("train@a-0", "evaluate@a-0", "cost@a")],
        "b-1": [f"{place}:train@b-1", f"{place}:evaluate@b-1"],
        "c": [f"{place}:cost@c"],
    }


def test_rows_that_train_alike_run_in_turn(tmp_path: Path) -> None:
    for row, text in {"a": "1", "b_c": "2", "d": "1"}.items():
        (tmp_path / row).mkdir()
        (tmp_path / row / "train-0.json").write_text(text)
    rows = ["a-0", "b_c-0", "d-0", "e"]
    assert duplicate_runs(rows, tmp_path) == [["a-0", "d-0"], ["b_c-0"], ["e"]]


def test_when_rows_are_called_off_no_twin_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def row(name: str, *_: object) -> tuple[int, float]:
        begun.append(name)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, as the row runs
        time.sleep(0.5)
        return 130, 0.5

    monkeypatch.setattr(zoo_run, "_row", row)
    monkeypatch.setattr(zoo_run, "duplicate_runs", lambda rows: [list(rows)])
    with pytest.raises(KeyboardInterrupt):
        list(zoo_run._side_by_side({"a-0": [], "d-0": []}, 2, {}))
    assert begun == ["a-0"]


@pytest.fixture(scope="module")
def record(root: Path) -> dict:
    """Give zoo/comparison.json as it is committed."""
    return json.loads((root / "zoo/comparison.json").read_text())


def test_the_committed_tables_are_of_the_rows_as_they_are(raw, params, root: Path, record) -> None:
    zoo = checked(raw, params)
    assert list(record["rows"]) == list(zoo.rows)
    assert (record["budget"], record["seeds"]) == (zoo.budget, zoo.seeds)
    table = (root / "zoo/table.md").read_text()
    assert zoo_table(record) in table
    assert channel_table(record) in table


def test_the_published_column_is_what_the_rows_say_was_printed(raw, record) -> None:
    cells = {line["row"]: line["published"] for line in table_cells(record)}
    for name, row in raw["rows"].items():
        printed = row.get("published", {})
        assert record["rows"][name]["published"] == printed
        known = [key for key in ("accuracy", "val_accuracy", "kaggle") if key in printed]
        if known:
            assert float(cells[name].split()[-1]) == round(printed[known[0]], 4)
            assert (known[0] == "accuracy") == (" " not in cells[name])
        else:
            assert cells[name] == "-"
