"""Settings: each problem is reported with its key, value and what is allowed, all together."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides

from minet.augment.config import eval_augment, mixes
from minet.core.errors import InputError
from minet.core.settings import read_settings
from minet.cost.config import CostRunSettings
from minet.evaluate.config import EvaluateSettings
from minet.models.registry import MODELS
from minet.params import DEFAULT_RECIPE, Params, check_params, read_yaml, recipe
from minet.train.config import RunSettings, TrainSettings, extra_settings
from stages.resolve import stage_settings
from tests.helpers.stage import call_stage


def put(raw: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """Set plain data at a dotted key; return the section that has it."""
    *sections, last = key.split(".")
    section = raw
    for name in sections:
        section = section[name]
    section[last] = value
    return section


def change(raw: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set plain data by dotted keys; a value of None removes the key."""
    for key, value in changes.items():
        section = put(raw, key, value)
        if value is None:
            del section[key.rpartition(".")[2]]


@pytest.fixture
def write(tmp_path: Path, raw_params: dict[str, Any]):
    """Return a function that writes params.yaml with changes as of `change`."""

    def with_changes(changes: dict[str, Any]) -> Path:
        change(raw_params, changes)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw_params))
        return path

    return with_changes


@pytest.fixture
def resolve(write, tmp_path: Path):
    """Return a function that runs the stage on changed params; it writes to `out` or nothing."""

    def run(changes: dict[str, Any]) -> CompletedProcess[str]:
        paths = ["--params", str(write(changes)), "--out", str(tmp_path / "out")]
        paths += ["--sample", "data/sample", "--weights", "data/weights"]
        paths += ["--run", str(tmp_path / "run"), "--scores", str(tmp_path / "scores")]
        done = call_stage("resolve", *paths)
        assert "Traceback" not in done.stderr
        assert (tmp_path / "out").exists() == (done.returncode == 0)
        return done

    return run


def problems_of(path: Path) -> list[str]:
    """Return the problems of a params file."""
    return check_params(read_yaml(path), MODELS)[1]


def read_params(path: Path, known_models: Collection[str]) -> Params:
    """Return the params of a file without problems."""
    params, problems = check_params(read_yaml(path), known_models)
    assert params is not None, problems
    return params


def test_committed_params_are_valid(root: Path) -> None:
    params = read_params(root / "params.yaml", MODELS)
    assert params.model == "resnet18"
    assert params.recipe == DEFAULT_RECIPE
    assert set(params.models) == set(MODELS), "each model has a block in params.yaml"


ALLOWED = "allowed: accumulation_steps"


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
            f"train.epoch is not a setting; did you mean epochs? {ALLOWED}, augment, ",
        ),
        ({"train.epochs": None}, "train.epochs is missing"),
        ({"evaluate": None}, "evaluate is missing"),
        (
            {"beton.crop_px": 300},
            "beton.crop_px is 300; must be at most resize_px, 256",
        ),
        (
            {"train.augment.crop_scale": [0.9, 0.2]},
            "train.augment.crop_scale is [0.9, 0.2]; must be two fractions of the area, 0 < low",
        ),
        (
            {"train.warmup_epochs": 99.0},
            "train.warmup_epochs is 99.0; must be at most epochs, 12",
        ),
        ({"sample.val": 3}, "sample.val is 3; must be at least one image per class, 10"),
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
        (
            {"recipes.fast": {"augment": {"flop": 1.0}}},
            "recipes.fast.augment.flop is not a setting; did you mean flip? allowed: channel_drop",
        ),
        (
            {"recipes.fast": {"epcohs": 2}},
            f"recipes.fast.epcohs is not a setting; did you mean epochs? {ALLOWED}, aug",
        ),
        ({"recipes.fast": 7}, "recipes.fast is 7; "),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_problem_is_reported_with_its_key(write, changes: dict[str, Any], expected: str) -> None:
    problems = problems_of(write(changes))
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected), problems[0]


AT_LEAST_0 = "input should be greater than or equal to 0"
AT_LEAST_1 = "input should be greater than or equal to 1"
BELOW_1, WHOLE = "input should be less than 1", "input should be a valid integer"
AT_MOST_1 = "input should be less than or equal to 1"
SETS = "'RGB', 'RG', 'GB', 'RB', 'R', 'G' or 'B'"
NUMBER, FLAG = "input should be a valid number", "input should be a valid boolean"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("train.accumulation_steps", 0, AT_LEAST_1),
        ("train.accumulation_steps", 1.5, WHOLE),
        ("train.accumulation_steps", 33, "must be at most batch_size, 32"),
        ("train.processes", 0, AT_LEAST_1),
        ("train.processes", "2", WHOLE),
        ("train.processes", 33, "must be at most batch_size, 32"),
        ("train.initial_px", -1, AT_LEAST_0),
        ("train.initial_px", 16.0, WHOLE),
        ("train.initial_px", 7, "must be 0 (no growth) or from 8 to input_px, 64"),
        ("train.initial_px", 65, "must be 0 (no growth) or from 8 to input_px, 64"),
        ("train.growth_epochs", -0.5, AT_LEAST_0),
        ("train.growth_epochs", "all", NUMBER),
        ("train.growth_epochs", 12.5, "must be at most epochs, 12"),
        ("train.nesterov", "yes", FLAG),
        ("train.nesterov", 1, FLAG),
        ("train.decay_norm_and_bias", 0, FLAG),
        ("train.max_grad_norm", -0.1, AT_LEAST_0),
        ("train.max_grad_norm", float("inf"), "input should be a finite number"),
        ("train.schedule", "exp", "input should be 'cosine', 'linear', 'step' or 'constant'"),
        ("train.label_smoothing", 1.0, BELOW_1),
        ("train.ema_decay", -0.1, AT_LEAST_0),
        ("train.ema_decay", 1.0, BELOW_1),
        ("train.precision", "float16", "input should be 'auto', 'float32' or 'bfloat16'"),
        ("train.compile", True, "input should be 'auto', 'always' or 'never'"),
        ("train.tensorboard", "no", FLAG),
        ("train.dvclive", 1, FLAG),
        ("train.augment.mixup_alpha", -0.2, AT_LEAST_0),
        ("train.augment.mixup_alpha", float("nan"), "input should be a finite number"),
        ("train.augment.cutmix_alpha", -1.0, AT_LEAST_0),
        ("train.augment.cutmix_alpha", "strong", NUMBER),
        ("train.channels", "BGR", f"input should be {SETS}"),
        ("train.channels", None, f"input should be {SETS}"),
        ("train.channel_mode", "black", "input should be 'zero', 'slice' or 'sigmoid'"),
        ("train.augment.channel_dropout", 1.5, AT_MOST_1),
        ("train.augment.channel_dropout", -0.5, AT_LEAST_0),
        ("train.compat.wrap_pixels", "yes", FLAG),
        ("train.compat.random_test_crop", 1, FLAG),
        ("train.compat.shuffle_validation", 2, AT_MOST_1),
        ("train.compat.shuffle_validation", True, NUMBER),
        ("evaluate.missing_channels", "sigmoid", "input should be 'zero' or 'slice'"),
        ("evaluate.channel_shuffle", -0.1, AT_LEAST_0),
        ("evaluate.channel_shuffle", 1.1, AT_MOST_1),
        ("evaluate.flip", "yes", FLAG),
        ("recipe", "fsat", "did you mean fast? allowed: default, fast"),
        ("recipe", "cube", "allowed: default, fast"),
        ("recipe", 3, "input should be a valid string"),
        ("recipes", [1], "input should be an object"),
        ("recipes.fast.epochs", 0, AT_LEAST_1),
        ("recipes.fast.batch_size", "64", WHOLE),
        ("recipes.fast.lr", -1.0, "input should be greater than 0"),
    ],
)
def test_a_bad_value_is_reported_once_with_its_key_and_what_is_allowed(
    raw_params: dict[str, Any], key: str, value: object, allowed: str
) -> None:
    put(raw_params, key, value)
    assert check_params(raw_params, MODELS)[1] == [f"{key} is {value!r}; {allowed}"]


REQUIRED = """recipe recipes
train.accumulation_steps train.initial_px train.growth_epochs train.nesterov
train.decay_norm_and_bias train.max_grad_norm train.ema_decay train.precision train.compile
train.processes train.tensorboard train.dvclive train.channels train.channel_mode
train.augment.mixup_alpha train.augment.cutmix_alpha train.augment.channel_dropout
train.compat train.compat.wrap_pixels train.compat.random_test_crop
train.compat.shuffle_validation evaluate.missing_channels evaluate.channel_shuffle"""


@pytest.mark.parametrize("key", REQUIRED.split())
def test_a_missing_key_is_reported_once(raw_params: dict[str, Any], key: str) -> None:
    change(raw_params, {key: None})
    assert check_params(raw_params, MODELS)[1] == [f"{key} is missing"]


@pytest.mark.parametrize(
    "changes",
    [
        {"train.initial_px": 4},  # resnet34_flatten changes input_px
        {"train.warmup_epochs": 99.0},  # fast changes epochs
        {"train.accumulation_steps": 65},  # and batch_size
        {"train.epochs": 0, "recipes.fast": {"lr": 0.1}},
    ],
    ids=str,
)
def test_a_problem_of_train_is_not_repeated_for_changes_of_train(
    write, changes: dict[str, Any]
) -> None:
    problems = problems_of(write(changes))
    assert [problem.partition(" is ")[0] for problem in problems] == [next(iter(changes))]


def test_problems_of_train_and_of_a_recipe_are_reported_together(write) -> None:
    changes = {"train.epochs": 0, "recipes.fast.lr": -1, "models.rrdb.train": {"momentum": 2.0}}
    keys = [problem.partition(" is ")[0] for problem in problems_of(write(changes))]
    assert sorted(keys) == ["models.rrdb.train.momentum", "recipes.fast.lr", "train.epochs"]


RENAMED = {
    "accumulate": "accumulation_steps",
    "protocol": "channel_mode",
    "start_px": "initial_px",
    "start_epochs": "growth_epochs",
    "decay_all": "decay_norm_and_bias",
    "clip_norm": "max_grad_norm",
    "step_epochs": "milestones",
    "step_factor": "gamma",
    "best_by": "selection_metric",
}
EACH_RENAMED = pytest.mark.parametrize(("old", "new"), RENAMED.items())


def test_every_renamed_setting_is_tested() -> None:
    assert TrainSettings.RENAMED == RENAMED
    assert EvaluateSettings.RENAMED == {"absent": "missing_channels"}
    assert set(RENAMED.values()) <= set(TrainSettings.model_fields)


@EACH_RENAMED
def test_an_old_key_of_train_is_reported_once_as_renamed(
    raw_params: dict[str, Any], old: str, new: str
) -> None:
    """Beside its new key, and without it: that it is missing is not reported too."""
    expected = [f"train.{old} was renamed to train.{new}"]
    change(raw_params, {f"train.{old}": 0})
    assert check_params(raw_params, MODELS)[1] == expected
    change(raw_params, {f"train.{new}": None})
    assert check_params(raw_params, MODELS)[1] == expected


@EACH_RENAMED
def test_an_old_key_in_changes_of_train_is_reported_as_renamed(
    raw_params: dict[str, Any], old: str, new: str
) -> None:
    """In each place, and also while `train` itself is not valid: changes are then checked alone."""
    blocks = ("models.rrdb.train", "models.cnn3.train", "recipes.fast")
    change(raw_params, {block: {old: 0} for block in blocks})
    expected = {f"{block}.{old} was renamed to {block}.{new}" for block in blocks}
    problems = check_params(raw_params, MODELS)[1]
    assert len(problems) == 3
    assert set(problems) == expected
    change(raw_params, {"train.epochs": 0})
    problems = check_params(raw_params, MODELS)[1]
    assert len(problems) == 4
    assert set(problems) > expected


def test_an_old_key_of_evaluate_is_reported_as_renamed(raw_params: dict[str, Any]) -> None:
    change(raw_params, {"evaluate.absent": "zero", "evaluate.missing_channels": None})
    expected = ["evaluate.absent was renamed to evaluate.missing_channels"]
    assert check_params(raw_params, MODELS)[1] == expected


def test_all_old_keys_of_a_file_are_reported_together(write) -> None:
    changes: dict[str, Any] = {f"train.{new}": None for new in RENAMED.values()}
    changes |= dict.fromkeys([f"train.{old}" for old in RENAMED], 0) | {"recipe": "own"}
    expected = {f"train.{old} was renamed to train.{new}" for old, new in RENAMED.items()}
    assert set(problems_of(write(changes))) == expected | {OWN}


OWN = "recipe is 'own'; own was renamed to default"


def test_the_old_name_of_the_default_recipe_is_reported_as_renamed(write) -> None:
    assert problems_of(write({"recipe": "own"})) == [OWN]
    assert not problems_of(write({"recipes.own": {"epochs": 2}})), "another block may have it"


OVERRIDES = {f"train.{old}": f"train.{new}" for old, new in RENAMED.items()}
OVERRIDES["evaluate.absent"] = "evaluate.missing_channels"
OVERRIDES["models.rrdb.train.accumulate"] = "models.rrdb.train.accumulation_steps"
OVERRIDES["recipes.fast.clip_norm"] = "recipes.fast.max_grad_norm"


def test_overrides_of_old_keys_are_refused_by_dvc_and_added_ones_reported_as_renamed(write) -> None:
    """DVC refuses a key that the file does not have and suggests `+`, which leads to our error."""
    path = write({})
    before = path.read_text()
    for old in OVERRIDES:
        with pytest.raises(InvalidArgumentError) as error:
            apply_overrides(path, [f"{old}=1"])
        assert f"Could not override '{old}'" in str(error.value.__cause__)
    assert path.read_text() == before
    apply_overrides(path, [f"+{old}=1" for old in OVERRIDES])
    expected = {f"{old} was renamed to {new}" for old, new in OVERRIDES.items()}
    assert set(problems_of(path)) == expected


def test_an_override_with_the_old_name_of_the_default_recipe_is_reported_as_renamed(write) -> None:
    path = write({})
    apply_overrides(path, ["recipe=own"])
    assert problems_of(path) == [OWN]


def test_nesterov_without_momentum_is_rejected_before_any_stage_runs(write) -> None:
    """The optimizer rejects it too, but only after all images have been prepared."""
    changes = {"train.optimizer": "sgd", "train.nesterov": True, "train.momentum": 0.0}
    (problem,) = problems_of(write(changes))
    assert problem.startswith(("train.nesterov is True; ", "train.momentum is 0.0; "))
    assert not problems_of(write({"train.momentum": 0.9}))


DROPPED = "must be 0 where channel_mode {} drops channels"


@pytest.mark.parametrize("setting", ["channel_shuffle", "channel_dropout"])
@pytest.mark.parametrize("channel_mode", ["slice", "sigmoid"])
@pytest.mark.parametrize("channels", ["RG", "B"])
def test_dropped_channels_exclude_channel_shuffle_and_channel_dropout(
    write, setting: str, channel_mode: str, channels: str
) -> None:
    choice = {"train.channels": channels, "train.channel_mode": channel_mode}
    (problem,) = problems_of(write(choice | {f"train.augment.{setting}": 0.5}))
    assert problem.startswith("train.augment")
    assert problem.endswith(f"{setting} {DROPPED.format(channel_mode)}"), problem
    assert not problems_of(write({f"train.augment.{setting}": 0.0}))


@pytest.mark.parametrize(
    ("channels", "channel_mode"), [("RG", "zero"), ("RGB", "slice"), ("RGB", "sigmoid")]
)
def test_three_input_channels_may_be_shuffled_and_dropped(
    write, channels: str, channel_mode: str
) -> None:
    changes = {"train.channels": channels, "train.channel_mode": channel_mode}
    changes |= {"train.augment.channel_shuffle": 0.5, "train.augment.channel_dropout": 0.5}
    assert not problems_of(write(changes))


def test_a_recipe_that_drops_channels_that_train_shuffles_is_rejected(write) -> None:
    """Each setting alone is valid."""
    changes = {
        "train.augment.channel_shuffle": 0.5,
        "recipes.fast": {"channels": "GB", "channel_mode": "slice"},
    }
    (problem,) = problems_of(write(changes))
    assert problem.startswith("recipes.fast.augment")
    assert problem.endswith(f"channel_shuffle {DROPPED.format('slice')}")


CONTRADICTION = {
    "model": "rrdb",
    "models.rrdb.train": {"warmup_epochs": 5.0},
    "recipes.fast": {"epochs": 2},
}


def test_a_recipe_that_contradicts_the_models_block_is_rejected(write) -> None:
    """Each alone is valid: `train` has 12 epochs."""
    (problem,) = problems_of(write(CONTRADICTION | {"recipe": "fast"}))
    assert problem.endswith(" warmup_epochs is 5.0; must be at most epochs, 2"), problem
    assert "models.rrdb.train" in problem
    assert "recipe fast" in problem


@pytest.mark.parametrize("changes", [{"recipe": "default"}, {"recipe": "fast", "model": "cnn3"}])
def test_a_recipe_may_contradict_what_is_not_selected(write, changes: dict[str, Any]) -> None:
    assert not problems_of(write(CONTRADICTION | changes))


def test_a_contradiction_stops_the_stage_that_runs_first(resolve) -> None:
    done = resolve(CONTRADICTION | {"recipe": "fast"})
    assert done.returncode == 1
    assert "warmup_epochs is 5.0; must be at most epochs, 2" in done.stderr


def test_a_recipe_cannot_be_named_default(write) -> None:
    """`recipe: default` applies no block, so a block of that name would never be used."""
    (problem,) = problems_of(write({"recipes.default": {"epochs": 2}}))
    assert problem.startswith("recipes.default ")


def test_all_problems_are_reported_together(write) -> None:
    path = write({"model": "x", "train.epochs": 0, "beton.storage": "png", "seed": -1})
    keys = [problem.split()[0] for problem in problems_of(path)]
    assert sorted(keys) == ["beton.storage", "model", "seed", "train.epochs"]


def test_problems_of_every_kind_are_reported_together(resolve, tmp_path: Path) -> None:
    """Types, ranges that depend on other settings, names of models, builders and files."""
    changes = {"model": "rrbd", "beton.storage": "png", "beton.crop_px": 300, "train.epochs": -1}
    changes |= {"models.rrdb": {"growth": "wide"}, "models.cnn3": {"channels": 0}}
    done = resolve(changes | {"data.root": str(tmp_path / "nowhere")})
    assert done.returncode == 1
    start = f"{tmp_path / 'params.yaml'}: "
    keys = {line.partition(start)[2].split()[0] for line in done.stderr.splitlines()}
    assert keys == {
        *("model", "beton.storage", "beton.crop_px", "train.epochs", "data.root"),
        *("models.rrdb.growth", "models.cnn3:"),
    }


def test_numbers_that_dvc_writes_are_read_as_floats(write) -> None:
    """`-S train.lr=0.00001` writes 1e-05, which plain PyYAML reads as text."""
    path = write({})
    path.write_text(path.read_text().replace("  lr: 0.001\n", "  lr: 1e-05\n", 1))
    assert read_params(path, MODELS).train.lr == 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [("train: [1, 2", "not readable as YAML"), ("just text", "must be a mapping of sections")],
)
def test_a_file_that_is_not_yaml_is_an_error_with_its_path(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_models_block_changes_only_the_settings_that_it_names(write) -> None:
    path = write({"models.rrdb.train": {"lr": 0.5, "augment": {"flip": 0.0}}})
    params = read_params(path, MODELS)
    own, common = recipe(params, "rrdb"), recipe(params, "resnet18")
    assert common == params.train
    assert (own.lr, own.augment.flip) == (0.5, 0.0)
    back = own.model_copy(update={"lr": common.lr, "augment": common.augment})
    assert back == common


def test_a_recipe_overrides_the_models_block_which_overrides_train(write) -> None:
    """Setting by setting, in augment too; all others are those of `train`."""
    changes = {
        "recipe": "long",
        "train.lr": 0.1,
        "train.epochs": 12,
        "train.momentum": 0.3,
        "train.augment.flip": 0.1,
        "train.augment.mixup_alpha": 0.1,
        "train.augment.cutmix_alpha": 0.1,
        "models.rrdb.train": {"lr": 0.2, "epochs": 20, "augment": {"flip": 0.2, "mixup_alpha": 2}},
        "recipes.long": {"lr": 0.3, "augment": {"flip": 0.3}},
    }
    params = read_params(write(changes | {"model": "rrdb"}), MODELS)
    changed = recipe(params, "rrdb")
    assert (changed.lr, changed.epochs, changed.momentum) == (0.3, 20, 0.3)
    augment = changed.augment
    assert (augment.flip, augment.mixup_alpha, augment.cutmix_alpha) == (0.3, 2, 0.1)
    other = recipe(params, "resnet18")
    assert (other.lr, other.epochs, other.augment.flip) == (0.3, 12, 0.3)
    assert stage_settings(params).train.train == changed


def test_a_recipe_that_is_not_selected_changes_nothing(write) -> None:
    before = stage_settings(read_params(write({}), MODELS))
    changed = {"recipes.fast": {"lr": 7.0}, "recipes.other": {"epochs": 1}}
    assert stage_settings(read_params(write(changed), MODELS)) == before


def _other(recipe: TrainSettings, name: str) -> object:
    """Return another value of a setting of `train`; it may contradict the others."""
    value = getattr(recipe, name)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if name == "augment":
        return value.model_copy(update={"mixup_alpha": 0.7})
    if name == "compat":
        return value.model_copy(update={"wrap_pixels": True})
    return (3,) if name == "milestones" else f"not {value}"


RUNTIME_ONLY = {"save_every_s", "processes", "tensorboard", "dvclive"}


@pytest.mark.parametrize("name", TrainSettings.model_fields)
def test_the_record_leaves_out_runtime_only_settings_and_no_others(write, name: str) -> None:
    """It decides whether a snapshot may be resumed, and is part of the metadata of the weights."""
    run = stage_settings(read_params(write({}), MODELS)).train
    assert isinstance(run, RunSettings)
    other = run.train.model_copy(update={name: _other(run.train, name)})
    record = run.model_copy(update={"train": other}).record()
    assert (record == run.record()) == (name in RUNTIME_ONLY)
    assert (name in record["train"]) != (name in RUNTIME_ONLY)


def test_the_record_has_all_settings_of_the_run_but_the_cache(write) -> None:
    run = stage_settings(read_params(write({}), MODELS)).train
    assert isinstance(run, RunSettings)
    assert run.model_copy(update={"cache": "stream"}).record() == run.record()
    assert run.record().keys() == set(RunSettings.model_fields) - {"cache"}


def test_extra_settings_are_those_that_are_on_with_their_values(write) -> None:
    assert extra_settings(read_params(write({}), MODELS).train) == {}
    changes = {
        "initial_px": 32,
        "growth_epochs": 2.0,
        "max_grad_norm": 1.5,
        "accumulation_steps": 4,
        "label_smoothing": 0.1,
        "ema_decay": 0.99,
        "channels": "RG",
        "channel_mode": "slice",
        "augment.mixup_alpha": 0.2,
        "augment.cutmix_alpha": 1.0,
    }
    train = {f"train.{name}": value for name, value in changes.items()}
    extras = extra_settings(read_params(write(train), MODELS).train)
    expected = {name.removeprefix("augment."): value for name, value in changes.items()}
    del expected["growth_epochs"]
    assert extras == expected


def test_channel_dropout_is_one_of_the_extra_settings(write) -> None:
    train = read_params(write({"train.augment.channel_dropout": 0.4}), MODELS).train
    assert extra_settings(train) == {"channel_dropout": 0.4}


@pytest.mark.parametrize(
    "bugs",
    [
        {"wrap_pixels": True},
        {"random_test_crop": True},
        {"shuffle_validation": 0.5},
        {"wrap_pixels": True, "random_test_crop": True, "shuffle_validation": 1.0},
    ],
)
def test_known_bugs_that_are_on_are_extra_settings_under_compat(
    write, bugs: dict[str, object]
) -> None:
    changes = {f"train.compat.{name}": value for name, value in bugs.items()}
    train = read_params(write(changes), MODELS).train
    assert extra_settings(train) == {"compat": bugs}


ALL_ON = {"rotation_degrees": 20.0, "channel_shuffle": 0.5, "channel_dropout": 0.4}
ALL_ON |= {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}


@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize("shuffle", [0.0, 0.3])
def test_scored_images_are_augmented_only_as_requested(
    write, *, cropped: bool, shuffle: float
) -> None:
    """Whatever the augmentation of training is: no channel dropout, no mixing."""
    changes = {f"train.augment.{name}": value for name, value in ALL_ON.items()}
    train = read_params(write(changes), MODELS).train
    compat = train.compat.model_copy(update={"random_test_crop": cropped})
    scored = eval_augment(train.augment, compat, shuffle=shuffle)
    if not cropped and not shuffle:
        assert scored is None
        return
    assert scored is not None
    off = {"channel_dropout": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    still = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0}
    requested = {"channel_shuffle": shuffle} | ({} if cropped else still)
    assert scored.model_dump() == train.augment.model_dump() | off | requested


@pytest.mark.parametrize(
    ("channels", "channel_mode", "count"),
    [
        *(("RGB", "zero", 3), ("RG", "zero", 3), ("RG", "slice", 2), ("B", "slice", 1)),
        *(("RB", "sigmoid", 2), ("RGB", "sigmoid", 3)),
    ],
)
def test_the_cost_is_counted_for_the_input_channels_of_the_model(
    write, channels: str, channel_mode: str, count: int
) -> None:
    """They follow from its recipe."""
    block = {"channels": count, "train": {"channels": channels, "channel_mode": channel_mode}}
    params = read_params(write({"model": "cnn3", "models.cnn3": block}), MODELS)
    cost = stage_settings(params).cost
    assert isinstance(cost, CostRunSettings)
    assert cost.channels == count


TWO_CHANNELS = {"train.channels": "GB", "train.channel_mode": "slice", "model": "cnn3"}


def test_a_model_is_run_on_the_channels_of_its_recipe_before_any_output_changes(
    resolve, tmp_path: Path
) -> None:
    done = resolve(TWO_CHANNELS)
    assert done.returncode == 1
    start = "models.cnn3: does not take batches of 2 x 2 x 64 x 64: "
    assert f"{start}cnn3 takes images of 3 channels, not 2" in done.stderr
    done = resolve({"models.cnn3.channels": 2})
    assert done.returncode == 0, done.stderr
    assert read_settings(tmp_path / "run" / "cost.json", CostRunSettings).channels == 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            TWO_CHANNELS | {"models.cnn3.channels": 2, "train.compat.shuffle_validation": 0.5},
            "shuffle_validation",
        ),
        (
            TWO_CHANNELS | {"models.cnn3.channels": 2, "evaluate.channel_shuffle": 0.5},
            "evaluate.channel_shuffle",
        ),
        (
            {
                "model": "pool_attention",
                "evaluate.missing_channels": "slice",
                "evaluate.channel_shuffle": 1,
            },
            "evaluate.channel_shuffle",
        ),
        ({"model": "cnn3", "evaluate.missing_channels": "slice"}, "evaluate.missing_channels"),
    ],
    ids=["validation", "test", "test, some dropped", "a model of three channels"],
)
def test_settings_that_evaluation_cannot_use_are_rejected_before_training(
    resolve, changes: dict[str, Any], key: str
) -> None:
    done = resolve(changes)
    assert done.returncode == 1
    assert f"{key} is " in done.stderr


def test_channels_may_be_dropped_in_the_test_of_a_model_that_takes_any_number(resolve) -> None:
    assert (
        resolve({"model": "pool_attention", "evaluate.missing_channels": "slice"}).returncode == 0
    )
    # `missing_channels` has no effect on a model with fewer input channels
    assert resolve(TWO_CHANNELS | {"models.cnn3.channels": 2}).returncode == 0


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_images_are_mixed_if_mixup_or_cutmix_is_on(write, alphas: tuple[float, float]) -> None:
    names = ("train.augment.mixup_alpha", "train.augment.cutmix_alpha")
    params = read_params(write(dict(zip(names, alphas, strict=True))), MODELS)
    assert mixes(params.train.augment) == any(alphas)


def test_a_stage_gets_only_what_it_reads(write) -> None:
    """Settings of other models, and sections of other stages, change nothing for a stage."""
    before = stage_settings(read_params(write({}), MODELS))
    changed = {"models.rrdb.growth": 48, "evaluate.mistakes": 3, "cost.input_px": 128}
    after = stage_settings(read_params(write(changed), MODELS))
    same = {
        field.name
        for field in fields(before)
        if getattr(before, field.name) == getattr(after, field.name)
    }
    assert same == {"sample", "index", "beton", "weights", "train"}


def test_settings_survive_the_json_between_stages(write, tmp_path: Path) -> None:
    settings = stage_settings(read_params(write({"model": "rrdb"}), MODELS)).train
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


def test_a_duplicate_key_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("rows:\n  a:\n    lr: 1\nrows:\n  b: {}\n")
    with pytest.raises(InputError, match="'rows' is a duplicate key, in lines 1 and 4"):
        read_yaml(file)
    file.write_text("a: {lr: 1, lr: 2}\n")
    with pytest.raises(InputError, match="'lr' is a duplicate key, in lines 1 and 1"):
        read_yaml(file)
    file.write_text("a: {lr: 1}\nb: {lr: 2}\n")
    assert read_yaml(file) == {"a": {"lr": 1}, "b": {"lr": 2}}
