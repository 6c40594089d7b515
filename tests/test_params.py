"""Settings: every mistake is named with key, value and what is allowed, all at once."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml

from minet.errors import InputError
from minet.models import MODELS
from minet.params import Params, check_params, read_yaml, recipe
from minet.settings import read_settings
from minet.settings_train import RunSettings
from stages.resolve import resolved


@pytest.fixture
def write(tmp_path: Path, raw_params: dict[str, Any]):
    """Write params.yaml with changes, keys dotted; a value of None removes the key."""

    def with_changes(changes: dict[str, Any]) -> Path:
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = raw_params
            for name in sections:
                section = section[name]
            if value is None:
                del section[last]
            else:
                section[last] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw_params))
        return path

    return with_changes


def problems_of(path: Path) -> list[str]:
    """Check a params file."""
    return check_params(read_yaml(path), MODELS)[1]


def read_params(path: Path, known_models: Collection[str]) -> Params:
    """Read params that have no problem."""
    params, problems = check_params(read_yaml(path), known_models)
    assert params is not None, problems
    return params


def test_committed_params_are_valid(root: Path) -> None:
    params = read_params(root / "params.yaml", MODELS)
    assert params.model == "resnet18"
    assert set(params.models) == set(MODELS), "each model has its block in params.yaml"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model": "rrbd"},
            f"model is 'rrbd'; did you mean rrdb? allowed: {', '.join(sorted(MODELS))}",
        ),
        (
            {"train.epochs": -1},
            "train.epochs is -1; input should be greater than or equal to 1",
        ),
        ({"train.lr": "fast"}, "train.lr is 'fast'; input should be a valid number"),
        ({"train.lr": 0}, "train.lr is 0; input should be greater than 0"),
        ({"train.lr": float("nan")}, "train.lr is nan; input should be a finite number"),
        ({"train.batch_size": 3.5}, "train.batch_size is 3.5; input should be a valid integer"),
        ({"train.batch_size": "8"}, "train.batch_size is '8'; input should be a valid integer"),
        (
            {"train.deterministic": "yes"},
            "train.deterministic is 'yes'; input should be a valid boolean",
        ),
        (
            {"train.optimizer": "sdg"},
            "train.optimizer is 'sdg'; input should be 'sgd', 'adam' or 'adamw'",
        ),
        (
            {"train.epoch": 3},
            "train.epoch is not a setting; did you mean epochs? allowed: augment, batch_size",
        ),
        ({"train.epochs": None}, "train.epochs is missing"),
        ({"evaluate": None}, "evaluate is missing"),
        (
            {"beton.crop_px": 300},
            "beton.crop_px is 300; must be at most resize_px, 256",
        ),
        (
            {"train.augment.crop_scale": [0.9, 0.2]},
            "train.augment.crop_scale is [0.9, 0.2]; must be two shares of the area, 0 < low",
        ),
        (
            {"train.warmup_epochs": 99.0},
            "train.warmup_epochs is 99.0; must be at most epochs, 12",
        ),
        ({"sample.val": 3}, "sample.val is 3; must be at least one image a class, 10"),
        ({"data.layout": "list"}, "data.layout is 'list'; input should be 'lists', 'csv' or"),
        ({"data.val": "/lists/val.txt"}, "data.val is '/lists/val.txt'; must be a path below"),
        (
            {"data.test": "../test.txt"},
            "data.test is '../test.txt'; must be a path below",
        ),
        ({"models.rrdb": None, "model": "rrdb"}, "models.rrdb is missing; add `rrdb: {}`"),
        ({"models.vgg": {}}, f"models.vgg is not a model; allowed: {min(MODELS)}, "),
        (
            {"models.rrdb.train": {"lr": -2}},
            "models.rrdb.train.lr is -2; input should be greater than 0",
        ),
        (
            {"models.rrdb.train": {"augment": {"flop": 1.0}}},
            "models.rrdb.train.augment.flop is not a setting; did you mean flip?",
        ),
        ({"models.rrdb.train": 7}, "models.rrdb.train is 7; must be a mapping"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_is_named(write, changes: dict[str, Any], expected: str) -> None:
    problems = problems_of(write(changes))
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected), problems[0]


def test_all_mistakes_are_reported_together(write) -> None:
    path = write({"model": "x", "train.epochs": 0, "beton.storage": "png", "seed": -1})
    keys = [problem.split()[0] for problem in problems_of(path)]
    assert sorted(keys) == ["beton.storage", "model", "seed", "train.epochs"]


def test_mistakes_of_every_kind_are_reported_together(write, tmp_path: Path, root: Path) -> None:
    """Types, rules over two settings, the table, builders and files, in one go of the stage."""
    changes = {"model": "rrbd", "beton.storage": "png", "beton.crop_px": 300, "train.epochs": -1}
    changes |= {"models.rrdb": {"growth": "wide"}, "models.cnn3": {"channels": 0}}
    path = write(changes | {"data.root": str(tmp_path / "nowhere")})
    command = [sys.executable, "-m", "stages.resolve", "--params", str(path)]
    command += ["--sample", "data/sample", "--weights", "data/weights"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    keys = {line.partition(f"{path}: ")[2].split()[0] for line in done.stderr.splitlines()}
    assert keys == {
        *("model", "beton.storage", "beton.crop_px", "train.epochs", "data.root"),
        *("models.rrdb.growth", "models.cnn3:"),
    }
    assert not (tmp_path / "out").exists()


def test_numbers_as_dvc_writes_them_are_floats(write) -> None:
    """`-S train.lr=0.00001` writes 1e-05, which plain PyYAML reads as text."""
    path = write({})
    path.write_text(path.read_text().replace("  lr: 0.001\n", "  lr: 1e-05\n", 1))
    assert read_params(path, MODELS).train.lr == 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [("train: [1, 2", "not readable as YAML"), ("just text", "must be a mapping of sections")],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_models_recipe_changes_only_what_it_names(write) -> None:
    path = write({"models.rrdb.train": {"lr": 0.5, "augment": {"flip": 0.0}}})
    params = read_params(path, MODELS)
    own, common = recipe(params, "rrdb"), recipe(params, "resnet18")
    assert common == params.train
    assert (own.lr, own.augment.flip) == (0.5, 0.0)
    back = own.model_copy(update={"lr": common.lr, "augment": common.augment})
    assert back == common


def test_a_stage_gets_only_what_it_reads(write) -> None:
    """Other models' settings, and other stages' sections, change nothing for a stage."""
    before = resolved(read_params(write({}), MODELS))
    changed = {"models.rrdb.growth": 48, "evaluate.mistakes": 3, "cost.input_px": 128}
    after = resolved(read_params(write(changed), MODELS))
    same = {name for name in before if before[name] == after[name]}
    assert same == {"sample", "index", "beton", "weights", "train"}


def test_settings_survive_the_file_between_stages(write, tmp_path: Path) -> None:
    settings = resolved(read_params(write({"model": "rrdb"}), MODELS))["train"]
    path = tmp_path / "train.json"
    path.write_text(settings.model_dump_json())
    assert read_settings(path, RunSettings) == settings
    path.write_text("{}")
    with pytest.raises(InputError, match="builder is missing"):
        read_settings(path, RunSettings)


def test_settings_are_frozen(root: Path) -> None:
    params = read_params(root / "params.yaml", MODELS)
    assert isinstance(params, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.train.epochs = 3  # type: ignore[misc]
