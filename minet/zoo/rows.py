"""Rows of zoo/params.yaml over the default recipe of params.yaml, with all problems reported."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from minet.augment.channels import input_channels
from minet.beton.config import BetonSettings, ineffective
from minet.core.errors import InputError, check_installed
from minet.core.settings import choices, merge, parse, setting_problems
from minet.cost.config import CostRunSettings
from minet.data.config import SampleRunSettings
from minet.evaluate.config import EvaluateSettings
from minet.nn.config import IMAGENET, RANDOM
from minet.params import Params, check_params, default_recipe, read_yaml
from minet.recipes import Layer, Recipe, channel_test_problems, model_problems
from minet.train.config import RunSettings
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
    recipe = published_recipe(name, zoo, params)
    pretrained = zoo.initials[row.initial] is not None and zoo.budgets[zoo.budget].pretrained
    arguments = params.arguments(row.model) | row.arguments
    model: dict[str, Any] = {"model": row.model, "builder": builder, "arguments": arguments}
    published = recipe.settings()
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
            train=within_budget(recipe, name, zoo, zoo.budget).settings(),
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
    beton = beton.model_copy(update={"jpeg_quality": beton.quality})
    drawn = PurePosixPath(variant.data.root) == VARIANTS / name / "sample"
    sample = SampleRunSettings(**variant.sample.model_dump(), drawn=drawn)
    return VariantSettings(sample=sample, data=variant.data, beton=beton)


def published_recipe(name: str, zoo: Zoo, params: Params) -> Recipe:
    """Return a row's published recipe: the root's default one, the zoo's recipe, then the row's."""
    row = zoo.rows[name]
    shared = _base(zoo, params).over(f"recipes.{row.recipe}", zoo.recipes[row.recipe])
    return shared.over(f"rows.{name}.train", row.train)


def within_budget(published: Recipe, name: str, zoo: Zoo, budget: str) -> Recipe:
    """Return a row's recipe with the changes of a budget, then with the row's own for it."""
    limited = published.over(f"budgets.{budget}.train", zoo.budgets[budget].train)
    return limited.over(f"rows.{name}.budgets.{budget}", zoo.rows[name].budgets.get(budget, {}))


def with_baselines(zoo: Zoo, names: Collection[str]) -> list[str]:
    """Return rows and their baselines in the order of the zoo; InputError names unknown rows."""
    unknown = [name for name in names if name not in zoo.rows]
    if unknown:
        raise InputError(*(f"{name!r} is not a row; {choices(name, zoo.rows)}" for name in unknown))
    baselines = {zoo.rows[name].baseline for name in names}
    return [name for name in zoo.rows if name in names or name in baselines]


def _base(zoo: Zoo, params: Params) -> Recipe:
    """Return the root's default recipe with the zoo's number of threads.

    The root's `train` changes no row: it is for experiments with one model.
    """
    default = Layer("params.yaml:recipes.default", _plain(default_recipe(params)))
    return Recipe((default, Layer("", {"threads": zoo.threads})))


def _evaluation(row: Row, zoo: Zoo, params: Params) -> dict[str, Any]:
    return merge(_plain(params.evaluate) | {"threads": zoo.threads}, row.evaluate)


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
    """Yield problems of changes: unknown settings, values not allowed or without effect."""
    base = _base(zoo, params)
    recipes = {
        name: base.over(f"recipes.{name}", changes).problems()
        for name, changes in zoo.recipes.items()
    }
    budgets = [
        problem
        for name, budget in zoo.budgets.items()
        for problem in base.over(f"budgets.{name}.train", budget.train).problems()
    ]
    for problems in (*recipes.values(), budgets):
        yield from problems
    yield from _variant_problems(zoo, params)
    for name, row in zoo.rows.items():
        evaluate = _evaluation(row, zoo, params)
        problems = model_problems(EvaluateSettings, evaluate, f"rows.{name}.evaluate")
        yield from problems
        if not (recipes[row.recipe] or budgets or problems):  # reported once, not for every row
            yield from dict.fromkeys(_row_problems(name, zoo, params))


def _row_problems(name: str, zoo: Zoo, params: Params) -> list[str]:
    """Return problems of a row's changes of its recipe, as published and within each budget."""
    row, recipe = zoo.rows[name], published_recipe(name, zoo, params)
    problems = recipe.problems()
    if problems:
        return problems
    for budget in row.budgets:
        problems += within_budget(recipe, name, zoo, budget).problems()
    problems += [] if problems else within_budget(recipe, name, zoo, zoo.budget).contradictions()
    missing = row.evaluate.get("missing_channels", "zero")
    return [*problems, *channel_test_problems(f"rows.{name}.evaluate", missing, recipe)]


def _variant_problems(zoo: Zoo, params: Params) -> Iterator[str]:
    for name, variant in zoo.variants.items():
        root = variant.data.root
        if PurePosixPath(root).is_absolute():  # zoo/dvc.yaml depends on ../${item.data.root}
            yield (
                f"variants.{name}.data.root is {root!r}; must be relative to the root of the tree, "
                "such as data/mine, which may be a link to a folder elsewhere"
            )
        yield from _beton_problems(f"variants.{name}.beton", variant.beton, params)


def _beton_problems(place: str, changes: Mapping[str, Any], params: Params) -> Iterator[str]:
    """Yield problems of a variant's changes of `beton`."""
    beton = merge(_plain(params.beton), changes)
    problems = model_problems(BetonSettings, beton, place)
    yield from problems
    if not problems and "jpeg_quality" in changes:
        yield from ineffective(place, parse(BetonSettings, beton))


def _plain(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(mode="json")
