"""Strict reading of params.yaml: all problems are reported together, before any stage runs."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from minet.beton.config import BetonSettings
from minet.core.errors import InputError
from minet.core.settings import (
    Seed,
    Settings,
    choices,
    merge,
    parse,
    patch_of,
    setting_problems,
)
from minet.cost.config import CostSettings
from minet.data.config import DataSettings, SampleSettings
from minet.evaluate.config import EvaluateSettings
from minet.loader.config import Cache
from minet.train.config import RANDOM, TrainSettings

DEFAULT_RECIPE = "default"  # `train` with the changes of the model's block, nothing else
_OLD_DEFAULT_RECIPE = "own"
TrainPatch = patch_of(TrainSettings)


class DataSection(DataSettings):
    """The images: where they are, and where training reads them from."""

    cache: Cache = Field(
        description="Where training reads images from: memory of the GPU, or of the host without "
        "one (`resident`), files (`stream`), or memory if half of what is free is enough (`auto`).",
    )


class Params(Settings):
    """params.yaml as a whole."""

    model: str = Field(
        description="Name of the model to train.",
    )
    also: tuple[str, ...] = Field(
        description="Names of models that are trained, evaluated and compared beside it.",
    )
    recipe: str = Field(
        description="Block of `recipes` that changes `train` and the model's changes of it; "
        "`default` is none.",
    )
    seed: Seed = Field(
        description="Seed of initial weights, order of images, augmentation and dropout.",
    )
    sample: SampleSettings = Field(
        description="The synthetic data set.",
    )
    data: DataSection = Field(
        description="The images.",
    )
    beton: BetonSettings = Field(
        description="How images are stored.",
    )
    train: TrainSettings = Field(
        description="The training recipe.",
    )
    evaluate: EvaluateSettings = Field(
        description="Evaluation on the test split.",
    )
    cost: CostSettings = Field(
        description="The cost of the model.",
    )
    recipes: dict[str, dict[str, Any]] = Field(
        description="Named changes of `train`, for any model.",
    )
    models: dict[str, dict[str, Any]] = Field(
        description="For each model its arguments, its initial `weights`, and under `train` its "
        "changes of `train`.",
    )

    def arguments(self, model: str) -> dict[str, Any]:
        """Return a model's arguments, without `weights` and `train`."""
        return own_arguments(self.models[model])

    def weights(self, model: str) -> str:
        """Return a model's initial weights: random, imagenet, or the name of a file."""
        return str(self.models[model].get("weights", RANDOM))


def own_arguments(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in a block of `models`, without `weights` and `train`."""
    return {key: value for key, value in block.items() if key not in ("weights", "train")}


class _Yaml12(yaml.SafeLoader):
    """PyYAML with YAML 1.2 numbers: `dvc exp run -S train.lr=0.00001` writes 1e-05.

    A duplicate key is an error, as in the YAML specification; PyYAML keeps the last one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                problem = f"{name!r} is a duplicate key, in lines {lines[name]} and {line}"
                raise yaml.constructor.ConstructorError(problem=problem)
            lines[name] = line
        return super().construct_mapping(node, deep)


_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return params.yaml as plain data; InputError if it is not a mapping of sections."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Yaml12)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be a mapping of sections, not {raw!r}")
    return raw


def check_params(
    raw: Mapping[str, Any], known_models: Collection[str]
) -> tuple[Params | None, list[str]]:
    """Check all sections; return each problem with its key, its value and what is allowed."""
    params, problems, train = None, [], raw.get("train")
    try:
        params = parse(Params, raw)
    except ValidationError as error:
        problems = setting_problems(error, Params)
        if any(detail["loc"][:1] == ("train",) for detail in error.errors()):
            train = None
    problems += _recipe_problems(raw, train) + _model_problems(raw, train, known_models)
    if params is not None and not problems:
        changed = f"train, changed by models.{params.model}.train and recipe {params.recipe}:"
        problems = [
            f"{changed} {problem}"
            for problem in _problems(TrainSettings, _merged_recipe(params, params.model))
        ]
    return params, problems


def recipe(params: Params, model: str) -> TrainSettings:
    """Return a model's recipe: `train`, changed by `models.<model>.train`, then by the recipe."""
    return parse(TrainSettings, _merged_recipe(params, model))


def _merged_recipe(params: Params, model: str) -> dict[str, Any]:
    own = merge(params.train.model_dump(mode="json"), params.models[model].get("train", {}))
    return merge(own, params.recipes.get(params.recipe, {}))


def _model_problems(
    raw: Mapping[str, Any], train: Mapping[str, Any] | None, known_models: Collection[str]
) -> list[str]:
    """Return problems of `model` and of the changes of `train` under `models`."""
    problems = []
    model, blocks = raw.get("model"), raw.get("models")
    if isinstance(model, str) and model not in known_models:
        problems.append(f"model is {model!r}; {choices(model, known_models)}")
    if not isinstance(blocks, dict):
        return problems
    problems += [
        f"models.{name} is not a model; {choices(name, known_models)}"
        for name in map(str, blocks)
        if name not in known_models
    ]
    if isinstance(model, str) and model in known_models and model not in blocks:
        problems.append(f"models.{model} is missing; add `{model}: {{}}` under models")
    for name, block in blocks.items():
        if isinstance(block, dict) and "train" in block:
            problems += change_problems(f"models.{name}.train", train, block["train"])
    return problems


def _recipe_problems(raw: Mapping[str, Any], train: Mapping[str, Any] | None) -> list[str]:
    """Return problems of `recipe` and of the blocks under `recipes`."""
    name, recipes = raw.get("recipe"), raw.get("recipes")
    if not isinstance(recipes, dict):
        return []
    problems = []
    if isinstance(name, str) and name not in (DEFAULT_RECIPE, *recipes):
        allowed = choices(name, [DEFAULT_RECIPE, *map(str, recipes)])
        if name == _OLD_DEFAULT_RECIPE:
            allowed = f"{name} was renamed to {DEFAULT_RECIPE}"
        problems.append(f"recipe is {name!r}; {allowed}")
    if DEFAULT_RECIPE in recipes:
        problems.append(
            f"recipes.{DEFAULT_RECIPE} is not a recipe: "
            f"`recipe: {DEFAULT_RECIPE}` applies no block of recipes"
        )
    for key, changes in recipes.items():
        if isinstance(changes, dict):  # others are reported with the sections
            problems += change_problems(f"recipes.{key}", train, changes)
    return problems


def change_problems(key: str, train: Mapping[str, Any] | None, changes: Any) -> list[str]:
    """Return problems of changes of `train`, each with its key below `key`.

    Changes are checked as part of the whole, since some ranges depend on other settings; where
    `train` itself is not valid (None), which is reported by itself, they are checked alone.
    """
    if not isinstance(changes, dict):
        return [f"{key} is {changes!r}; must be a mapping of settings of train"]
    if train is None:
        return _problems(TrainPatch, changes, key)
    return _problems(TrainSettings, merge(train, changes), key)


def _problems(kind: type[Settings], raw: Mapping[str, Any], *prefix: str) -> list[str]:
    try:
        parse(kind, raw)
    except ValidationError as error:
        return setting_problems(error, kind, prefix=prefix)
    return []
