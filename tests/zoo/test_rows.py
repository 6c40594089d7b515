"""Rows of zoo/params.yaml: merged over the defaults, checked, all problems reported."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.published import PUBLISHED
from minet.core.errors import InputError
from minet.models.registry import MODELS, reinitialized_layers
from minet.params import Params, check_params, default_recipe
from minet.zoo.config import RowSettings, Zoo
from minet.zoo.hidden import hidden_settings
from minet.zoo.rows import check_zoo, row_settings, variant_settings, with_baselines
from stages.code import digests
from stages.rows import _run_problems
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


def checked(raw: dict[str, Any], params: Params) -> Zoo:
    zoo, problems = check_zoo(raw, params, MODELS)
    assert zoo is not None
    assert not problems
    return zoo


def settings_of(name: str, zoo: Zoo, params: Params) -> RowSettings:
    model = zoo.rows[name].model
    return row_settings(name, zoo, params, MODELS[model], reinitialized_layers(model))


def test_each_report_has_all_of_its_rows(raw, params) -> None:
    rows = checked(raw, params).rows
    counts = dict.fromkeys(("000", "001", "002", "003", "004", "ours"), 0)
    for name, row in rows.items():
        counts[row.report] += 1
        assert name.startswith("ours_" if row.report == "ours" else f"r{row.report}_")
        assert settings_of(name, checked(raw, params), params).train.model == row.model
    assert counts == {"000": 6, "001": 7, "002": 4, "003": 20, "004": 4, "ours": 3}


def test_settings_of_a_row_override_its_recipe_which_overrides_the_default(raw, params) -> None:
    default = default_recipe(params)
    zoo = checked(raw | {"budget": "published"}, params)
    resnet, dynamic = (
        settings_of(f"r000_{name}", zoo, params).train.train
        for name in ("resnet34", "dynamic_resnet18")
    )
    assert (resnet.epochs, dynamic.epochs) == (10, 30)
    assert resnet.batch_size == dynamic.batch_size == 128
    assert resnet.nesterov == default.nesterov
    assert resnet.augment.crop_scale == (1, 1)
    assert resnet.augment.crop_ratio == default.augment.crop_ratio


def test_threads_are_those_of_the_zoo_unless_a_row_has_its_own(raw, params) -> None:
    raw["rows"]["r003_cool"] |= {"train": {"threads": 4}, "evaluate": {"threads": 3}}
    zoo = checked(raw | {"threads": 2}, params)
    threads = {
        name: (row.train.train.threads, row.evaluate.threads)
        for name in ("r003_cool", "r003_cnn3")
        if (row := settings_of(name, zoo, params))
    }
    assert threads == {"r003_cool": (4, 3), "r003_cnn3": (2, 2)}


def test_rows_are_selected_with_their_baselines_in_the_order_of_the_zoo(raw, params) -> None:
    zoo = checked(raw, params)
    assert with_baselines(zoo, ["r003_cool", "r000_resnet18"]) == [
        "r000_resnet18", "r003_resnet34", "r003_cool",
    ]  # fmt: skip
    with pytest.raises(InputError, match="'r003_col' is not a row; did you mean r003_cool"):
        with_baselines(zoo, ["r003_cool", "r003_col"])


def test_the_example_row_of_the_docs_is_valid(raw, params) -> None:
    text = (ROOT / "docs/zoo.md").read_text().partition("## Adding a row\n")[2]
    (block,) = re.findall(r"\n((?:    .*\n)+)", text.partition("It goes to")[0])
    raw["rows"] |= yaml.safe_load(textwrap.dedent(block))
    zoo = checked(raw | {"budget": "published"}, params)
    settings = settings_of("mine", zoo, params)
    assert settings.train.train.epochs == 100
    assert settings.train.arguments == {"growth": 48}
    assert not list(_run_problems({"mine": settings}))


def test_what_changes_no_row_and_what_the_budget_changes_is_printed(
    raw, raw_params: dict[str, Any], params
) -> None:
    lines = list(hidden_settings(checked(raw, params), params))
    assert "budget smoke: batch_size is 32 in 31 of 44 rows, not 4, 64, 128" in lines
    assert "budget smoke: epochs is 1 in 1 of 44 rows, not 200" in lines
    assert (
        "budget smoke: recipes.report_001_channels.milestones is [100, 150, 180]; it has no effect "
        "where budgets.smoke.train.epochs is 2"
    ) in lines
    published = checked(raw | {"budget": "published"}, params)
    assert list(hidden_settings(published, params)) == []
    raw_params |= {"recipe": "fast"}
    raw_params["train"] |= {"lr": 0.1, "augment": {"flip": 0.0}}
    changed, problems = check_params(raw_params, MODELS)
    assert changed is not None, problems
    train, recipe = hidden_settings(published, changed)
    assert train.startswith("params.yaml: train.lr, train.augment.flip change no row")
    assert recipe.startswith("params.yaml: recipe fast changes no row")
    rows = {name: settings_of(name, published, params) for name in published.rows}
    assert rows == {name: settings_of(name, published, changed) for name in published.rows}


def test_a_budget_changes_the_recipe_and_not_the_cost(raw, params) -> None:
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


def test_cost_is_counted_with_the_channels_of_the_model(raw, params) -> None:
    zoo = checked(raw, params)
    assert settings_of("r003_slice_rg", zoo, params).cost.channels == 2
    assert settings_of("r003_sigmoid_b", zoo, params).cost.channels == 1
    assert settings_of("r003_cnn3", zoo, params).cost.channels == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_shuffle": 0.5}, "evaluate.channel_shuffle is 0.5; must be 0 where channels"),
        (
            {"missing_channels": "slice"},
            "evaluate.missing_channels is 'slice'; models.cool: does not take batches of",
        ),
    ],
)
def test_evaluation_settings_that_a_model_cannot_run_are_rejected(
    raw, params, change, message: str
) -> None:
    name = "r003_slice_rg" if "channel_shuffle" in change else "r003_cool"
    raw["rows"][name]["evaluate"] = change
    rows = {name: settings_of(name, checked(raw, params), params)}
    (problem, *_) = _run_problems(rows)
    assert problem.startswith(f"rows.{name}: {message}")


def test_a_variant_has_its_own_data(raw, params) -> None:
    zoo = checked(raw, params)
    assert zoo.rows["r002_resnet50"].data == "zoo/data/five_512"
    assert zoo.rows["r000_resnet18"].data == "data"
    variant = variant_settings("five_512", zoo, params)
    assert (variant.sample.classes, variant.data.layout) == (5, "csv")
    assert variant.sample.drawn
    raw["variants"]["five_512"]["data"]["root"] = "data/retinas"
    assert not variant_settings("five_512", checked(raw, params), params).sample.drawn
    assert (variant.beton.crop_px, variant.beton.storage) == (512, "jpg")
    assert variant.beton.jpeg_quality == params.beton.quality == 90


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("budget", "smok", "budget is 'smok'; did you mean smoke? allowed: published, smoke"),
        ("seeds", [1, 1], "seeds is [1, 1]; must be distinct"),
        ("seeds", [], "seeds is []; list should have at least 1 item"),
        ("seeds", 3, "seeds is 3; input should be a valid array"),
        ("threads", 0, "threads is 0; input should be greater than or equal to 1"),
        ("rows.mine-1", {}, "rows.mine-1 is 'mine-1'; must be lowercase letters, digits and"),
        ("rows.mine", {"report": "ours"}, "rows.mine.data is missing"),
        ("rows.r003_cool.model", "cooll", "rows.r003_cool.model is 'cooll'; did you mean cool?"),
        ("rows.r003_cool.recipe", "report_3", "rows.r003_cool.recipe is 'report_3'; did you mean"),
        ("rows.r003_cool.data", "zoo/data/six", "rows.r003_cool.data is 'zoo/data/six'; did you"),
        ("rows.r003_cool.initial", "imagenet", "rows.r003_cool.initial is 'imagenet'; did you"),
        ("rows.r003_cool.baseline", "r003_cool", "baseline is 'r003_cool'; did you mean"),
        (
            "rows.r003_cool.baseline",
            None,
            "rows.r003_cool.target_ratio is 0.9; must have a baseline",
        ),
        ("rows.r003_cool.baseline", "r002_resnet18", "must be 'data', the same test images"),
        ("rows.r003_cool.train", {"epoch": 3}, "rows.r003_cool.train.epoch is not a setting; did"),
        ("rows.r003_cool.train", {"lr": -1.0}, "rows.r003_cool.train.lr is -1.0; input should"),
        ("rows.r003_cool.train", {"lr": None}, "rows.r003_cool.train.lr is None; input should"),
        ("rows.r003_cool.train", 7, "rows.r003_cool.train is 7; input should be an object"),
        (
            "rows.r003_cool.evaluate",
            {"missing_channels": "x"},
            "rows.r003_cool.evaluate.missing_channels is 'x'",
        ),
        ("rows.r003_cool.budgets", {"big": {}}, "rows.r003_cool.budgets.big is not a budget"),
        ("rows.r003_cool.published", {"acuracy": 0.1}, "acuracy is not a setting; did you mean"),
        ("rows.r003_cool.published", {"accuracy": 25.3}, "published.accuracy is 25.3; input"),
        ("recipes.report_000.lr", "fast", "recipes.report_000.lr is 'fast'; input should be"),
        ("budgets.smoke.train", {"epochs": 0}, "budgets.smoke.train.epochs is 0; input should"),
        ("variants.five_512.beton", {"crop_px": 9999}, "variants.five_512.beton.crop_px is 9999"),
        (
            "variants.five_512.data.root",
            "/images",
            "'/images'; must be relative to the root of the",
        ),
        ("initials.imagenet_resnet18", "resnet81", "initials.imagenet_resnet18 is 'resnet81'"),
    ],
)
def test_a_problem_has_its_key_and_what_is_allowed(
    raw, params, key: str, value: object, message: str
) -> None:
    *sections, name = key.split(".")
    section = raw
    for parent in sections:
        section = section[parent]
    section[name] = value
    _, problems = check_zoo(raw, params, MODELS)
    assert any(message in problem for problem in problems), problems


NO_EFFECT = "it has no effect where"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "rows.r003_cool.train.momentum",
            0.5,
            f"{NO_EFFECT} recipes.report_003_layers.optimizer is 'adam': set rows.r003_cool.train.",
        ),
        (
            "rows.r003_cool.train.warmup_epochs",
            11.0,
            "must be at most recipes.report_003_layers.epochs, 10",
        ),
        (
            "rows.r003_cool.train.warmup_epochs",
            5.0,
            "must be at most budgets.smoke.train.epochs, 2",
        ),
        (
            "rows.r003_cool.budgets.published.gamma",
            0.5,
            f"{NO_EFFECT} recipes.report_003_layers.schedule is 'constant'",
        ),
        (
            "recipes.report_000.decay_norm_and_bias",
            False,
            f"{NO_EFFECT} params.yaml:recipes.default.weight_decay is 0.0",
        ),
        (
            "rows.r003_slice_rg.evaluate.missing_channels",
            "slice",
            f"{NO_EFFECT} rows.r003_slice_rg.train.channels is 'RG' and rows.r003_slice_rg.train.",
        ),
    ],
)
def test_a_setting_that_another_hides_is_reported_with_the_places_of_both(
    raw, params, key: str, value: object, text: str
) -> None:
    *sections, name = key.split(".")
    changed = raw
    for section in sections:
        changed = changed.setdefault(section, {})
    changed[name] = value
    _, (problem,) = check_zoo(raw, params, MODELS)
    assert problem.startswith(f"{key} is {value!r}; {text}")


def test_a_quality_of_betons_without_jpegs_is_reported(raw, params) -> None:
    raw["variants"]["five_512"]["beton"] = {"jpeg_quality": 80}
    _, (problem,) = check_zoo(raw, params, MODELS)
    key = "variants.five_512.beton"
    assert problem.startswith(f"{key}.jpeg_quality is 80; {NO_EFFECT} {key}.storage is 'raw'")


def test_a_mistake_in_a_recipe_is_reported_once_not_for_every_row_of_it(raw, params) -> None:
    raw["recipes"]["report_000"]["lr"] = -1.0
    _, problems = check_zoo(raw, params, MODELS)
    (problem,) = problems
    assert problem.startswith("recipes.report_000.lr is -1.0; input should be")


def test_published_costs_of_rows_include_those_of_the_table_of_costs(raw, params) -> None:
    """Each figure that docs/costs.md explains is among the published costs of a row."""
    rows = checked(raw, params).rows.values()
    for figure in PUBLISHED:
        of_model = [r for r in rows if r.report == figure.report and r.model == figure.model]
        printed = {
            re.sub(r"[\s()M%G]", "", value)
            for row in of_model
            for value in row.published.cost.values()
        }
        assert figure.printed in printed, figure


def test_code_of_a_model_is_only_in_the_digests_of_its_rows(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    cool, rrdb = (Path(f"minet/models/{name}.py") for name in ("cool", "rrdb"))
    assert str(cool) in digests("train", cool)
    assert str(cool) not in digests("train", rrdb)
    assert {"stages/train.py", "minet/train/loop.py", "minet/nn/layers.py"} <= digests(
        "train", rrdb
    ).keys()
    assert "minet/train/loop.py" not in digests("cost", rrdb)
    assert not any("zoo" in file for file in digests("train", rrdb))
