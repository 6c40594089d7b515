"""params.yaml read strictly: all problems reported together, before anything is touched."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from minet.beton.config import BetonSettings
from minet.core.errors import InputError
from minet.core.settings import Settings, choices, merge, parse, setting_problems
from minet.cost.config import CostSettings
from minet.data.config import DataSettings, SampleSettings
from minet.evaluate.config import EvaluateSettings
from minet.loader.config import Cache
from minet.train.config import RANDOM, TrainSettings

DEFAULT_RECIPE = "default"  # the recipe of `train` with what the model changes of it


class DataSection(DataSettings):
    """`data` of params.yaml: what the index reads, and where training keeps what it reads."""

    cache: Cache


class Params(Settings):
    """params.yaml, whole; a block of `models` holds arguments, `weights` and its own `train`.

    `recipe` is DEFAULT_RECIPE or the name of a block of `recipes`, which changes `train` for any model.
    """

    model: str
    recipe: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sample: SampleSettings
    data: DataSection
    beton: BetonSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    cost: CostSettings
    recipes: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]

    def arguments(self, model: str) -> dict[str, Any]:
        """Give a model's own arguments, without the weights and the recipe."""
        return own_arguments(self.models[model])

    def weights(self, model: str) -> str:
        """Give what a model starts from: random or imagenet weights, or a file's name."""
        return str(self.models[model].get("weights", RANDOM))


def own_arguments(block: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments in a block of `models`, without the weights and the recipe."""
    return {key: value for key, value in block.items() if key not in ("weights", "train")}


class _Yaml12(yaml.SafeLoader):
    """PyYAML with YAML 1.2 numbers: `dvc exp run -S train.lr=0.00001` writes 1e-05.

    A key that stands twice is an error, as YAML has it; PyYAML takes the last one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                where = f"{name!r} stands twice, in lines {lines[name]} and {line}"
                raise yaml.constructor.ConstructorError(problem=where)
            lines[name] = line
        return super().construct_mapping(node, deep)


_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read params.yaml as plain data; InputError if it is no mapping of sections."""
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
    """Check all sections; say every problem with its key, its value and what is allowed."""
    try:
        params = parse(Params, raw)
    except ValidationError as error:
        params, problems = None, setting_problems(error, Params)
    else:
        problems = []
    problems += _recipe_problems(raw) + _model_problems(raw, known_models)
    if params is not None and not problems:
        together = _merged_recipe(params, params.model)
        place = f"train, changed by models.{params.model}.train and recipe {params.recipe}: "
        problems = [place + problem for problem in _train_problems(together)]
    return params, problems


def recipe(params: Params, model: str) -> TrainSettings:
    """Give a model's recipe: `train`, changed by `models.<model>.train`, then by the recipe."""
    return parse(TrainSettings, _merged_recipe(params, model))


def _merged_recipe(params: Params, model: str) -> dict[str, Any]:
    own = merge(params.train.model_dump(mode="json"), params.models[model].get("train", {}))
    return merge(own, params.recipes.get(params.recipe, {}))


def _model_problems(raw: Mapping[str, Any], known_models: Collection[str]) -> list[str]:
    """Problems of `model` and of the recipes under `models`."""
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
            problems += change_problems(f"models.{name}.train", raw.get("train"), block["train"])
    return problems


def _recipe_problems(raw: Mapping[str, Any]) -> list[str]:
    """Problems of `recipe` and of the blocks under `recipes`."""
    name, recipes, base = raw.get("recipe"), raw.get("recipes"), raw.get("train")
    if not isinstance(recipes, dict):
        return []
    problems = []
    if isinstance(name, str) and name not in (DEFAULT_RECIPE, *recipes):
        problems.append(
            f"recipe is {name!r}; {choices(name, [DEFAULT_RECIPE, *map(str, recipes)])}"
        )
    if DEFAULT_RECIPE in recipes:
        problems.append(
            f"recipes.{DEFAULT_RECIPE} is not a recipe: `recipe: {DEFAULT_RECIPE}` stands for none of them"
        )
    for key, changes in recipes.items():
        if isinstance(changes, dict):  # pydantic tells the others
            problems += change_problems(f"recipes.{key}", base, changes)
    return problems


def change_problems(here: str, base: Any, changes: Any) -> list[str]:
    """Problems that changes of a recipe add to those of `train`."""
    if not isinstance(changes, dict):
        return [f"{here} is {changes!r}; must be a mapping of settings of train"]
    if not isinstance(base, dict):
        return []
    before, after = (_train_errors(raw) for raw in (base, merge(base, changes)))
    already = before.keys() - _keys(changes)  # `train` itself reports these
    return [f"{here}.{text}" for place, text in after.items() if place not in already]


def _train_problems(raw: Mapping[str, Any]) -> list[str]:
    return list(_train_errors(raw).values())


def _keys(changes: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Give the places of the settings that changes name."""
    found: set[tuple[str, ...]] = set()
    for key, value in changes.items():
        inner = _keys(value) if isinstance(value, dict) else set()
        found |= {(str(key), *place) for place in inner} | {(str(key),)}
    return found


def _train_errors(raw: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Give what is wrong with settings of `train`, by the place of each."""
    try:
        parse(TrainSettings, raw)
    except ValidationError as error:
        places = [tuple(map(str, detail["loc"])) for detail in error.errors()]
        return dict(zip(places, setting_problems(error, TrainSettings), strict=True))
    return {}
