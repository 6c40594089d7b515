"""Old names of settings in zoo/params.yaml are reported with their new ones."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from minet.models.registry import MODELS
from minet.params import Params, check_params, read_yaml
from minet.train.config import TrainSettings
from minet.zoo.rows import check_zoo

SECTIONS = (
    "recipes.report_000",
    "budgets.smoke.train",
    "budgets.published.train",
    "rows.r003_cool.train",
    "rows.r003_cool.budgets.smoke",
    "rows.r003_cool.budgets.published",
)


@pytest.fixture(scope="module")
def committed(root: Path) -> dict[str, Any]:
    """Return zoo/params.yaml as it is committed, as plain data."""
    return read_yaml(root / "zoo/params.yaml")


@pytest.fixture
def raw(committed: dict[str, Any]) -> dict[str, Any]:
    """Return a copy to change."""
    return deepcopy(committed)


@pytest.fixture
def params(raw_params: dict[str, Any]) -> Params:
    """Return the root's settings."""
    params, problems = check_params(raw_params, MODELS)
    assert params is not None, problems
    return params


def put(raw: dict[str, Any], section: str, key: str, value: object) -> None:
    """Set a key of a section, which is created where it is missing."""
    for name in section.split("."):
        raw = raw.setdefault(name, {})
    raw[key] = value


def test_the_committed_zoo_has_no_old_key(raw, params) -> None:
    assert check_zoo(raw, params, MODELS)[1] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_old_keys_of_train_are_reported_as_renamed(raw, params, section: str) -> None:
    """Wherever changes of `train` are, for a budget that is not selected too."""
    renamed = TrainSettings.RENAMED
    for old in renamed:
        put(raw, section, old, 0)
    _, problems = check_zoo(raw, params, MODELS)
    expected = {f"{section}.{old} was renamed to {section}.{new}" for old, new in renamed.items()}
    assert expected <= set(problems)


def test_an_old_key_of_evaluate_is_reported_as_renamed(raw, params) -> None:
    section = "rows.r003_cool.evaluate"
    put(raw, section, "absent", "zero")
    _, problems = check_zoo(raw, params, MODELS)
    assert problems == [f"{section}.absent was renamed to {section}.missing_channels"]


def test_the_rule_of_a_row_is_reported_as_renamed(raw, params) -> None:
    put(raw, "rows.r003_cool", "rule", 0.9)
    _, problems = check_zoo(raw, params, MODELS)
    assert problems == ["rows.r003_cool.rule was renamed to rows.r003_cool.target_ratio"]


def test_an_old_key_of_a_row_is_reported_once(raw, params) -> None:
    put(raw, "rows.r003_cool.budgets.smoke", "accumulate", 2)
    _, problems = check_zoo(raw, params, MODELS)
    section = "rows.r003_cool.budgets.smoke"
    assert problems == [f"{section}.accumulate was renamed to {section}.accumulation_steps"]


def test_an_old_key_that_an_override_adds_is_reported_as_renamed(
    root: Path, tmp_path: Path, params
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((root / "zoo/params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    apply_overrides(path, ["+recipes.report_000.best_by=accuracy"])
    _, problems = check_zoo(read_yaml(path), params, MODELS)
    expected = "recipes.report_000.best_by was renamed to recipes.report_000.selection_metric"
    assert expected in problems
