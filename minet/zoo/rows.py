"""Rows of zoo/params.yaml merged over the defaults of params.yaml, with all problems reported."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from minet.augment.channels import input_channels
from minet.beton.config import BetonSettings
from minet.core.errors import InputError, check_installed
from minet.core.settings import choices, merge, parse, setting_problems
from minet.cost.config import CostRunSettings
from minet.evaluate.config import EvaluateSettings
from minet.params import Params, change_problems, check_params, read_yaml
from minet.train.config import IMAGENET, RANDOM, RunSettings, TrainSettings
from minet.zoo.config import Row, RowSettings, VariantSettings, Zoo

DATA = "data"  # index and betons of the main pipeline
VARIANTS = PurePosixPath("zoo/data")


def read_zoo(params: Path, zoo: Path, known_models: Mapping[str, str]) -> tuple[Zoo, Params]:
    """Read zoo/params.yaml and its defaults; InputError lists all problems of one of the files."""
    defaults, problems = check_params(read_yaml(params), known_models)
    if defaults is None or problems:
        raise InputError(*(f"{params}: {problem}" for problem in problems))
    checked, problems = check_zoo(read_yaml(zoo), defaults, known_models)
    if checked is None or problems:
        raise InputError(*(f"{zoo}: {problem}" for problem in problems))
    return checked, defaults


def check_packages() -> None:
    """Raise InputError if a package of the dependency group `zoo` is missing, before any run."""
    check_installed("zoo", "altair", "jinja2", "statsmodels", "vl_convert")


def check_zoo(
    raw: Mapping[str, Any], params: Params, known_models: Mapping[str, str]
) -> tuple[Zoo | None, list[str]]:
    """Check zoo/params.yaml; return it with its problems, each with key, value and what is allowed.

    It is None if its structure is invalid.
    """
    try:
        zoo = parse(Zoo, raw)
    except ValidationError as error:
        # pydantic's marker of an invalid name
        return None, [text.replace(".[key] is", " is") for text in setting_problems(error, Zoo)]
    problems = list(_name_problems(zoo, known_models))
    if not problems:
        problems = list(_change_problems(zoo, params))
    return zoo, problems


def row_settings(
    name: str, zoo: Zoo, params: Params, builder: str, reinitialized: tuple[str, ...]
) -> RowSettings:
    """Return what a row's stages read; ImageNet weights do not set the `reinitialized` layers."""
    row = zoo.rows[name]
    full = _recipe(row, zoo, params)
    pretrained = zoo.initials[row.initial] is not None and zoo.budgets[zoo.budget].pretrained
    arguments = params.arguments(row.model) | row.arguments
    model: dict[str, Any] = {"model": row.model, "builder": builder, "arguments": arguments}
    published = parse(TrainSettings, full)
    return RowSettings(
        row=row,
        seeds=zoo.seeds,
        published=published,
        train=RunSettings(
            **model,
            seed=zoo.seeds[0],
            cache=params.data.cache,
            weights=IMAGENET if pretrained else RANDOM,
            reinitialized=reinitialized if pretrained else (),
            train=parse(TrainSettings, _within_budget(full, row, zoo)),
        ),
        evaluate=parse(EvaluateSettings, _evaluation(row, zoo, params)),
        cost=CostRunSettings(  # at the published image size, whatever the budget
            **model,
            channels=len(input_channels(published.channels, published.channel_mode)),
            input_px=published.input_px,
        ),
    )


def variant_settings(name: str, zoo: Zoo, params: Params) -> VariantSettings:
    """Return what the stages of a variant read."""
    variant = zoo.variants[name]
    beton = parse(BetonSettings, merge(_plain(params.beton), variant.beton))
    return VariantSettings(sample=variant.sample, data=variant.data, beton=beton)


def with_baselines(zoo: Zoo, names: Collection[str]) -> list[str]:
    """Return rows and their baselines in the order of the zoo; InputError names unknown rows."""
    unknown = [name for name in names if name not in zoo.rows]
    if unknown:
        raise InputError(*(f"{name!r} is not a row; {choices(name, zoo.rows)}" for name in unknown))
    baselines = {zoo.rows[name].baseline for name in names}
    return [name for name in zoo.rows if name in names or name in baselines]


def _recipe(row: Row, zoo: Zoo, params: Params) -> dict[str, Any]:
    """Return a row's published recipe: `train` of params.yaml, the zoo's recipe, then the row's.

    `threads` is the zoo's, for evaluation too, unless the row has its own.
    """
    base = _plain(params.train) | {"threads": zoo.threads}
    return merge(merge(base, zoo.recipes[row.recipe]), row.train)


def _evaluation(row: Row, zoo: Zoo, params: Params) -> dict[str, Any]:
    return merge(_plain(params.evaluate) | {"threads": zoo.threads}, row.evaluate)


def _within_budget(recipe: dict[str, Any], row: Row, zoo: Zoo) -> dict[str, Any]:
    limited = merge(recipe, zoo.budgets[zoo.budget].train)
    return merge(limited, row.budgets.get(zoo.budget, {}))


def _name_problems(zoo: Zoo, known_models: Mapping[str, str]) -> Iterator[str]:
    """Yield problems of names that refer to nothing."""
    folders = [DATA, *(str(VARIANTS / name) for name in zoo.variants)]
    if zoo.budget not in zoo.budgets:
        yield f"budget is {zoo.budget!r}; {choices(zoo.budget, zoo.budgets)}"
    for name, model in zoo.initials.items():
        if model is not None and model not in known_models:
            yield f"initials.{name} is {model!r}; {choices(model, known_models)}, or nothing"
    for name, row in zoo.rows.items():
        allowed = {
            "model": known_models,
            "data": folders,
            "initial": zoo.initials,
            "recipe": zoo.recipes,
            "baseline": [other for other in zoo.rows if other != name],
        }
        for key, values in allowed.items():
            value = getattr(row, key)
            if value is not None and value not in values:
                yield f"rows.{name}.{key} is {value!r}; {choices(value, values)}"
        yield from _baseline_problems(name, row, zoo)
        for budget in row.budgets.keys() - zoo.budgets.keys():
            yield f"rows.{name}.budgets.{budget} is not a budget; {choices(budget, zoo.budgets)}"


def _baseline_problems(name: str, row: Row, zoo: Zoo) -> Iterator[str]:
    if row.target_ratio is not None and row.baseline is None:
        yield f"rows.{name}.target_ratio is {row.target_ratio}; must have a baseline"
    if row.baseline in zoo.rows and zoo.rows[row.baseline].data != row.data:
        yield (
            f"rows.{name}.baseline is {row.baseline!r}, whose data is "
            f"{zoo.rows[row.baseline].data!r}; must be {row.data!r}, the same test images"
        )


def _change_problems(zoo: Zoo, params: Params) -> Iterator[str]:
    """Yield problems of changes: unknown settings, values that are not allowed."""
    base = _plain(params.train)
    recipes = {
        name: change_problems(f"recipes.{name}", base, changes)
        for name, changes in zoo.recipes.items()
    }
    budgets = {
        name: change_problems(f"budgets.{name}.train", base, budget.train)
        for name, budget in zoo.budgets.items()
    }
    for problems in (*recipes.values(), *budgets.values()):
        yield from problems
    yield from _variant_problems(zoo, params)
    for name, row in zoo.rows.items():
        evaluate = _evaluation(row, zoo, params)
        yield from _problems(EvaluateSettings, evaluate, f"rows.{name}.evaluate")
        if recipes[row.recipe] or any(budgets.values()):
            continue  # reported once, not for every row
        recipe = merge(base, zoo.recipes[row.recipe])
        problems = change_problems(f"rows.{name}.train", recipe, row.train)
        if not problems:
            recipe = merge(recipe, row.train)
            for key, changes in row.budgets.items():
                limited = merge(recipe, zoo.budgets[key].train)
                problems += change_problems(f"rows.{name}.budgets.{key}", limited, changes)
        if not problems:
            within = _within_budget(recipe, row, zoo)
            problems = _problems(TrainSettings, within, f"rows.{name} within {zoo.budget}")
        yield from problems


def _variant_problems(zoo: Zoo, params: Params) -> Iterator[str]:
    for name, variant in zoo.variants.items():
        root = variant.data.root
        if PurePosixPath(root).is_absolute():  # zoo/dvc.yaml depends on ../${item.data.root}
            yield (
                f"variants.{name}.data.root is {root!r}; must be relative to the root of the tree, "
                "such as data/mine, which may be a link to a folder elsewhere"
            )
        beton = merge(_plain(params.beton), variant.beton)
        yield from _problems(BetonSettings, beton, f"variants.{name}.beton")


def _problems(kind: type[BaseModel], raw: Mapping[str, Any], prefix: str) -> list[str]:
    try:
        parse(kind, raw)
    except ValidationError as error:
        return setting_problems(error, kind, prefix=(prefix,))
    return []


def _plain(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(mode="json")
