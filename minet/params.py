"""Strict reading of params.yaml: all problems are reported together, before any stage runs."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from minet.beton.config import BetonSettings, ineffective
from minet.core.errors import InputError
from minet.core.settings import Seed, Settings, choices, parse, setting_problems
from minet.cost.config import CostSettings
from minet.data.config import DataSettings, SampleSettings
from minet.evaluate.config import EvaluateSettings
from minet.loader.config import Cache
from minet.nn.config import RANDOM
from minet.recipes import (
    DEFAULT_RECIPE,
    Recipe,
    TrainPatch,
    channel_test_problems,
    given,
    named_recipe,
)
from minet.train.config import TrainSettings

_OWN_RECIPE = "own"  # old name of null
_NO_ARGUMENTS = ("weights", "recipe", "train")  # keys of a model's block; `train` is an old one


class DataSection(DataSettings):
    """The images: where they are, and where training reads them from."""

    cache: Cache = Field(
        description="Where training reads images from: memory of the GPU, or of the host without "
        "one (`resident`), files (`stream`), or memory if half of what is free is enough (`auto`).",
    )


class Params(Settings):
    """params.yaml as a whole."""

    model: str = Field(description="Name of the model to train.")
    also: tuple[str, ...] = Field(
        description="Names of models that are trained, scored and costed beside it; `model` may be "
        "among them.",
    )
    recipe: str | None = Field(
        description="Recipe of all models that are trained, a key of `recipes`; null is the one "
        "that a model names, or `default`.",
    )
    seed: Seed = Field(
        description="Seed of initial weights, order of images, augmentation and dropout.",
    )
    sample: SampleSettings = Field(description="The synthetic data set.")
    data: DataSection = Field(description="The images.")
    beton: BetonSettings = Field(description="How images are stored.")
    train: TrainPatch = Field(
        description="Settings of training that win over those of the recipe; null is as the recipe "
        "says.",
    )
    evaluate: EvaluateSettings = Field(description="Evaluation on the test split.")
    cost: CostSettings = Field(description="The cost of the model.")
    recipes: dict[str, TrainPatch] = Field(
        description="Training recipes: `default` has all settings, the others change some of them.",
    )
    models: dict[str, dict[str, Any]] = Field(
        description="For each model its arguments, its initial `weights`, and the name of its "
        "`recipe`.",
    )

    @field_validator("also")
    @classmethod
    def _are_distinct(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(also)) < len(also):
            raise ValueError("must be distinct")
        return also

    def selected(self) -> tuple[str, ...]:
        """Return the models that are trained, `model` first, each once."""
        return tuple(dict.fromkeys((self.model, *self.also)))

    def arguments(self, model: str) -> dict[str, Any]:
        """Return a model's arguments."""
        return own_arguments(self.models[model])

    def weights(self, model: str) -> str:
        """Return a model's initial weights: random, imagenet, or the name of a file."""
        return str(self.models[model].get("weights", RANDOM))


def own_arguments(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in a block of `models`, without its `weights` and `recipe`."""
    return {key: value for key, value in block.items() if key not in _NO_ARGUMENTS}


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
    params, problems = None, []
    try:
        params = parse(Params, raw)
    except ValidationError as error:
        problems = setting_problems(error, Params)
    problems += [*_recipe_name_problems(raw), *_model_problems(raw, known_models)]
    if params is not None and not problems:
        problems = _whole_problems(params)
    return params, problems


def default_recipe(params: Params) -> TrainSettings:
    """Return `recipes.default`, which rows of the zoo change too."""
    return named_recipe(params.recipes, DEFAULT_RECIPE).settings()


def recipe(params: Params, model: str) -> TrainSettings:
    """Return what a model is trained with: its recipe, over which `train` wins."""
    return recipe_layers(params, model).settings()


def recipe_layers(params: Params, model: str) -> Recipe:
    """Return a model's recipe as layers: `recipes.default`, one other recipe, `train`."""
    name = params.recipe or params.models[model].get("recipe") or DEFAULT_RECIPE
    return named_recipe(params.recipes, name).over("train", given(params.train))


def recipe_summary(params: Params) -> list[str]:
    """Return what each model's training has other than `recipes.default`, and from where."""
    models: dict[str, list[str]] = {}
    for model in params.selected():
        lines = recipe_layers(params, model).differences()
        own = params.models[model].get("recipe")
        if params.recipe and own and own != params.recipe:
            unused = "; ".join(named_recipe(params.recipes, own).differences())
            lines.insert(0, f"recipe {params.recipe}, not its own ({unused})")
        for line in lines:
            models.setdefault(line, []).append(model)
    return [f"{', '.join(names)}: {line}" for line, names in models.items()]


def _whole_problems(params: Params) -> list[str]:
    """Return problems of settings that are valid by themselves."""
    recipes = {name: named_recipe(params.recipes, name) for name in params.recipes}
    problems = recipes.pop(DEFAULT_RECIPE).contradictions()
    problems = problems or [text for one in recipes.values() for text in one.problems()]
    problems = problems or [
        text for model in params.selected() for text in _training_problems(params, model)
    ]
    return [*dict.fromkeys(problems), *ineffective("beton", params.beton)]


def _training_problems(params: Params, model: str) -> list[str]:
    """Return problems of what a model is trained with, and of its test on channel sets."""
    layers, missing_channels = recipe_layers(params, model), params.evaluate.missing_channels
    return layers.problems() or list(channel_test_problems("evaluate", missing_channels, layers))


def _recipe_name_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems of names of recipes, and the lack of a default."""
    recipes, names = raw.get("recipes"), {"recipe": raw.get("recipe")}
    if not isinstance(recipes, dict):
        return
    if DEFAULT_RECIPE not in recipes:
        yield f"recipes.{DEFAULT_RECIPE} is missing"
    for model, block in _blocks(raw).items():
        name = names[f"models.{model}.recipe"] = block.get("recipe")
        if not isinstance(name, str | None):
            yield f"models.{model}.recipe is {name!r}; must be a key of recipes"
    for key, name in names.items():
        if isinstance(name, str) and name not in recipes:
            renamed = f"{name} was renamed to null" if name == _OWN_RECIPE else None
            yield f"{key} is {name!r}; {renamed or choices(name, [*map(str, recipes)])}"


def _model_problems(raw: Mapping[str, Any], known_models: Collection[str]) -> Iterator[str]:
    """Yield problems of `model`, `also` and blocks under `models`."""
    also, blocks = raw.get("also"), raw.get("models")
    names = {"model": [raw.get("model")], "also": also if isinstance(also, list) else []}
    for key, name in ((key, name) for key, group in names.items() for name in group):
        if isinstance(name, str) and name not in known_models:
            yield f"{key} is {name!r}; {choices(name, known_models)}"
        elif isinstance(name, str) and isinstance(blocks, dict) and name not in blocks:
            yield f"models.{name} is missing; add `{name}: {{}}` under models"
    for name in blocks.keys() - set(known_models) if isinstance(blocks, dict) else ():
        yield f"models.{name} is not a model; {choices(str(name), known_models)}"
    for name, block in _blocks(raw).items():
        if "train" in block:
            yield (
                f"models.{name}.train was moved to recipes: write its settings under "
                f"recipes.{name}, and models.{name}.recipe: {name}"
            )


def _blocks(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    blocks = raw.get("models")
    pairs = blocks.items() if isinstance(blocks, dict) else ()
    return {str(name): block for name, block in pairs if isinstance(block, dict)}
