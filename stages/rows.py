"""Check zoo/params.yaml and write what each row's stages read, before any output is touched."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from minet.errors import InputError
from minet.models import MODELS, argument_problems, fresh_layers, input_problems, pretrained_url
from minet.optim import side_at
from minet.params import Params, own_arguments
from minet.results import whole_folder, write_json
from minet.settings_data import BetonRunSettings
from minet.settings_weights import WeightsSettings
from minet.settings_zoo import RowSettings, Zoo, ZooSettings
from minet.trials import scoring_problems
from minet.zoo import read_zoo, row_settings, variant_settings
from stages.cli import parse_paths, run


def main() -> None:
    """Write a folder of JSONs, whole; InputError lists all problems and writes nothing."""
    args = parse_paths(__doc__, "params", "zoo", "out")
    zoo, params = read_zoo(args.params, args.zoo, MODELS)
    rows = {
        name: row_settings(name, zoo, params, MODELS[row.model], fresh_layers(row.model))
        for name, row in zoo.rows.items()
    }
    problems = [*_weight_problems(zoo), *_run_problems(rows, params)]
    if problems:
        raise InputError(*(f"{args.zoo}: {problem}" for problem in problems))
    with whole_folder(args.out) as folder:
        for place, settings in resolved(zoo, params, rows):
            write_json(folder / f"{place}.json", settings.model_dump(mode="json"))
    print(f"{len(rows)} rows, budget {zoo.budget}, seeds {', '.join(map(str, zoo.seeds))}")


def resolved(
    zoo: Zoo, params: Params, rows: dict[str, RowSettings]
) -> Iterator[tuple[str, BaseModel]]:
    """Give each stage's settings by their place: of rows, of variants, of weights."""
    for name, settings in rows.items():
        yield f"rows/{name}", settings
    yield "zoo", ZooSettings(budget=zoo.budget, rows=list(rows))
    for name in zoo.variants:
        variant = variant_settings(name, zoo, params)
        beton = BetonRunSettings(root=variant.data.root, **variant.beton.model_dump())
        parts = {"sample": variant.sample, "index": variant.data, "beton": beton}
        yield from ((f"data/{name}/{stage}", part) for stage, part in parts.items())
    for name, model in zoo.initials.items():
        url = pretrained_url(model) if model and zoo.budgets[zoo.budget].pretrained else None
        file = None if url is None else Path(url).name
        yield f"initial/{name}", WeightsSettings(file=file, url=url)


def _weight_problems(zoo: Zoo) -> Iterator[str]:
    """Look for weights that nobody has, or that another model's layers are to take."""
    for name, model in zoo.initials.items():
        if model is not None and pretrained_url(model) is None:
            yield f"initials.{name} is {model!r}; it has no ImageNet weights"
    for name, row in zoo.rows.items():
        model = zoo.initials[row.initial]
        if model is not None and pretrained_url(model) != pretrained_url(row.model):
            yield f"rows.{name}.initial is {row.initial!r}; {row.model} does not take {model}'s"


def _run_problems(rows: dict[str, RowSettings], params: Params) -> Iterator[str]:
    """Run each model without memory on images as its row gives them, and as its cost is counted."""
    seen: dict[str, list[str]] = {}
    for name, settings in rows.items():
        model, recipe, cost = settings.row.model, settings.train.train, settings.cost
        arguments = own_arguments(params.models[model]) | settings.row.arguments
        sides = {side_at(recipe, epoch) for epoch in range(recipe.epochs)}
        shapes = [(2, cost.channels, side_px, side_px) for side_px in sorted(sides)]
        shapes.append((1, cost.channels, cost.input_px, cost.input_px))
        key = f"{model} {arguments} {shapes}"
        if key not in seen:
            seen[key] = argument_problems(model, arguments) or [
                text for shape in shapes for text in input_problems(model, arguments, shape=shape)
            ]
        found = seen[key] or scoring_problems(model, arguments, recipe, settings.evaluate)
        yield from (f"rows.{name}: {text}" for text in found)


if __name__ == "__main__":
    run(main)
