"""The rows of zoo/params.yaml over the defaults of params.yaml, checked, all problems at once."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from minet.augment.channels import input_channels
from minet.beton.config import BetonSettings
from minet.core.errors import InputError
from minet.core.settings import choices, merge, parse, setting_problems
from minet.cost.config import CostRunSettings
from minet.evaluate.config import EvaluateSettings
from minet.params import Params, change_problems, check_params, read_yaml
from minet.train.config import IMAGENET, RANDOM, RunSettings, TrainSettings
from minet.zoo.config import Row, RowSettings, VariantSettings, Zoo

DATA = "data"  # the root's index and betons; variants are below data/zoo
VARIANTS = PurePosixPath(DATA, "zoo")


def read_zoo(params: Path, zoo: Path, known_models: Mapping[str, str]) -> tuple[Zoo, Params]:
    """Read zoo/params.yaml and the defaults under it; InputError lists all problems of a file."""
    defaults, problems = check_params(read_yaml(params), known_models)
    if defaults is None or problems:
        raise InputError(*(f"{params}: {problem}" for problem in problems))
    found, problems = check_zoo(read_yaml(zoo), defaults, known_models)
    if found is None or problems:
        raise InputError(*(f"{zoo}: {problem}" for problem in problems))
    return found, defaults


def check_zoo(
    raw: Mapping[str, Any], params: Params, known_models: Mapping[str, str]
) -> tuple[Zoo | None, list[str]]:
    """Check zoo/params.yaml; say every problem with its key, its value and what is allowed."""
    try:
        zoo = parse(Zoo, raw)
    except ValidationError as error:
        # pydantic's own word where a name itself is wrong
        return None, [text.replace(".[key] is", " is") for text in setting_problems(error, Zoo)]
    problems = list(_name_problems(zoo, known_models))
    if not problems:
        problems = list(_change_problems(zoo, params))
    return zoo, problems


def row_settings(
    name: str, zoo: Zoo, params: Params, builder: str, reinitialized: tuple[str, ...]
) -> RowSettings:
    """Give what a row's stages read; `reinitialized` are the layers that ImageNet weights leave random."""
    row = zoo.rows[name]
    full = _recipe(row, zoo, params)
    pretrained = zoo.initials[row.initial] is not None and zoo.budgets[zoo.budget].pretrained
    arguments = params.arguments(row.model) | row.arguments
    chosen: dict[str, Any] = {"model": row.model, "builder": builder, "arguments": arguments}
    published = parse(TrainSettings, full)
    return RowSettings(
        row=row,
        seeds=zoo.seeds,
        published=published,
        train=RunSettings(
            **chosen,
            seed=zoo.seeds[0],
            cache=params.data.cache,
            weights=IMAGENET if pretrained else RANDOM,
            reinitialized=reinitialized if pretrained else (),
            train=parse(TrainSettings, _within_budget(full, row, zoo)),
        ),
        evaluate=parse(EvaluateSettings, _evaluation(row, zoo, params)),
        cost=CostRunSettings(  # of what was published, whatever the budget
            **chosen,
            channels=len(input_channels(published.channels, published.channel_mode)),
            input_px=published.input_px,
        ),
    )


def variant_settings(name: str, zoo: Zoo, params: Params) -> VariantSettings:
    """Give what the stages of a variant read."""
    variant = zoo.variants[name]
    beton = parse(BetonSettings, merge(_plain(params.beton), variant.beton))
    return VariantSettings(sample=variant.sample, data=variant.data, beton=beton)


def with_baselines(zoo: Zoo, names: Collection[str]) -> list[str]:
    """Give rows and what they are held against, in the zoo's order; InputError names the others."""
    unknown = [name for name in names if name not in zoo.rows]
    if unknown:
        raise InputError(*(f"{name!r} is no row; {choices(name, zoo.rows)}" for name in unknown))
    baselines = {zoo.rows[name].baseline for name in names}
    return [name for name in zoo.rows if name in names or name in baselines]


def _recipe(row: Row, zoo: Zoo, params: Params) -> dict[str, Any]:
    """Give a row's recipe as published: the root's `train` under the zoo's recipe and the row.

    Threads are the zoo's, for evaluation too, but for a row that has its own.
    """
    base = _plain(params.train) | {"threads": zoo.threads}
    return merge(merge(base, zoo.recipes[row.recipe]), row.train)


def _evaluation(row: Row, zoo: Zoo, params: Params) -> dict[str, Any]:
    return merge(_plain(params.evaluate) | {"threads": zoo.threads}, row.evaluate)


def _within_budget(recipe: dict[str, Any], row: Row, zoo: Zoo) -> dict[str, Any]:
    cheaper = merge(recipe, zoo.budgets[zoo.budget].train)
    return merge(cheaper, row.budgets.get(zoo.budget, {}))


def _name_problems(zoo: Zoo, known_models: Mapping[str, str]) -> Iterator[str]:
    """Look for names that are said in one place and mean nothing in the other."""
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
            yield f"rows.{name}.budgets.{budget} is no budget; {choices(budget, zoo.budgets)}"


def _baseline_problems(name: str, row: Row, zoo: Zoo) -> Iterator[str]:
    if row.rule is not None and row.baseline is None:
        yield f"rows.{name}.rule is {row.rule}; must have a baseline"
    if row.baseline in zoo.rows and zoo.rows[row.baseline].data != row.data:
        yield (
            f"rows.{name}.baseline is {row.baseline!r}, whose data is "
            f"{zoo.rows[row.baseline].data!r}; must be {row.data!r}, the same test images"
        )


def _change_problems(zoo: Zoo, params: Params) -> Iterator[str]:
    """Look for changes of settings that no setting has, or to values that are not allowed."""
    base = _plain(params.train)
    for name, changes in zoo.recipes.items():
        yield from change_problems(f"recipes.{name}", base, changes)
    for name, budget in zoo.budgets.items():
        yield from change_problems(f"budgets.{name}.train", base, budget.train)
    for name, variant in zoo.variants.items():
        beton = merge(_plain(params.beton), variant.beton)
        yield from _problems(BetonSettings, beton, f"variants.{name}.beton")
    for name, row in zoo.rows.items():
        recipe = merge(base, zoo.recipes[row.recipe])
        problems = change_problems(f"rows.{name}.train", recipe, row.train)
        if not problems:
            recipe = merge(recipe, row.train)
            for key, changes in row.budgets.items():
                cheaper = merge(recipe, zoo.budgets[key].train)
                problems += change_problems(f"rows.{name}.budgets.{key}", cheaper, changes)
        if not problems:
            whole = _within_budget(recipe, row, zoo)
            problems = _problems(TrainSettings, whole, f"rows.{name} within {zoo.budget}")
        yield from problems
        evaluate = _evaluation(row, zoo, params)
        yield from _problems(EvaluateSettings, evaluate, f"rows.{name}.evaluate")


def _problems(kind: type[BaseModel], raw: Mapping[str, Any], place: str) -> list[str]:
    try:
        parse(kind, raw)
    except ValidationError as error:
        return setting_problems(error, kind, prefix=(place,))
    return []


def _plain(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(mode="json")
