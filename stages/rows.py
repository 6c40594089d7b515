"""Check zoo/params.yaml, before any output is touched, and write the settings of rows' stages."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from minet.beton.config import BetonRunSettings
from minet.core.cli import parse_paths, run
from minet.core.errors import InputError
from minet.core.files import atomic_dir, write_json
from minet.dry_run import run_problems
from minet.models.registry import (
    MODELS,
    argument_problems,
    pretrained_url,
    reinitialized_layers,
)
from minet.nn.config import WeightsSettings
from minet.params import Params
from minet.zoo.config import RowSettings, Zoo, ZooSettings
from minet.zoo.hidden import hidden_settings
from minet.zoo.rows import check_packages, read_zoo, row_settings, variant_settings


def main() -> None:
    """Write a folder of JSON files atomically, or nothing; InputError lists all problems."""
    args = parse_paths(__doc__, "params", "zoo", "out")
    check_packages()
    zoo, params = read_zoo(args.params, args.zoo, MODELS)
    rows = {
        name: row_settings(name, zoo, params, MODELS[row.model], reinitialized_layers(row.model))
        for name, row in zoo.rows.items()
    }
    problems = [*_weight_problems(zoo), *_run_problems(rows)]
    if problems:
        raise InputError(*(f"{args.zoo}: {problem}" for problem in problems))
    with atomic_dir(args.out) as folder:
        for name, settings in settings_files(zoo, params, rows):
            write_json(folder / f"{name}.json", settings.model_dump(mode="json"))
    for line in hidden_settings(zoo, params):
        print(line)
    print(f"{len(rows)} rows, budget {zoo.budget}, seeds {', '.join(map(str, zoo.seeds))}")


def settings_files(
    zoo: Zoo, params: Params, rows: dict[str, RowSettings]
) -> Iterator[tuple[str, BaseModel]]:
    """Yield the settings of rows, variants and weights with the names of their files."""
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
    """Yield problems of weights: unavailable, or of another model than the row's."""
    for name, model in zoo.initials.items():
        if model is not None and pretrained_url(model) is None:
            yield f"initials.{name} is {model!r}; it has no ImageNet weights"
    for name, row in zoo.rows.items():
        model = zoo.initials[row.initial]
        if model is not None and pretrained_url(model) != pretrained_url(row.model):
            yield f"rows.{name}.initial is {row.initial!r}; {row.model} does not take {model}'s"


def _run_problems(rows: dict[str, RowSettings]) -> Iterator[str]:
    """Yield problems of dry runs of each row's training, evaluation and cost (meta tensors)."""
    for name, settings in rows.items():
        run = settings.train
        problems = argument_problems(run.model, run.arguments)
        problems = problems or run_problems(run, settings.evaluate, settings.cost)
        yield from (f"rows.{name}: {text}" for text in problems)


if __name__ == "__main__":
    run(main)
