"""Check params.yaml and write what each stage reads of it, before any output is touched."""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from minet.errors import InputError
from minet.models import MODELS, argument_problems, input_problems
from minet.params import read_params, recipe
from minet.results import write_json
from minet.settings import (
    SPLITS,
    BetonRunSettings,
    CostRunSettings,
    DataSettings,
    Params,
    RunSettings,
)
from stages.cli import parse_paths, run


def main() -> None:
    """Write one JSON per consumer; InputError lists all problems and writes nothing."""
    args = parse_paths(__doc__, "params", "sample", "out")
    params = read_params(args.params, MODELS)
    problems = [*_model_problems(params), *_data_problems(params.data, args.sample)]
    if problems:
        raise InputError(*(f"{args.params}: {problem}" for problem in problems))
    for name, settings in resolved(params).items():
        _write(args.out / f"{name}.json", settings)


def resolved(params: Params) -> dict[str, BaseModel]:
    """Give each stage's settings: only what it reads, so that nothing else can rerun it."""
    model = params.model
    chosen: dict[str, Any] = {
        "model": model,
        "builder": MODELS[model],
        "arguments": params.arguments(model),
    }
    return {
        "sample": params.sample,
        "index": params.data,
        "beton": BetonRunSettings(root=params.data.root, **params.beton.model_dump()),
        "train": RunSettings(**chosen, seed=params.seed, train=recipe(params, model)),
        "evaluate": params.evaluate,
        "cost": CostRunSettings(**chosen, input_px=params.cost.input_px),
    }


def _model_problems(params: Params) -> list[str]:
    """Try the arguments of every model, and the chosen one on images of its recipe's size."""
    problems = [
        problem
        for name in params.models
        for problem in argument_problems(name, params.arguments(name))
    ]
    model = params.model
    if not problems:
        side_px = recipe(params, model).input_px
        problems = input_problems(model, params.arguments(model), channels=3, side_px=side_px)
    return problems


def _data_problems(data: DataSettings, sample: Path) -> list[str]:
    """Look for the images and lists, which DVC would miss only after deleting the index.

    The sample is made when it is needed. A queued experiment runs in a folder of its own, to which
    DVC brings only what it tracks: there the original tree counts.
    """
    trees = (Path(), Path(os.environ.get("DVC_ROOT", ".")))
    roots = [tree / data.root for tree in trees if (tree / data.root).is_dir()]
    if roots:
        places = {split: str(getattr(data, split)) for split in SPLITS}
        return [
            f"data.{split} is {place!r}; no such file or folder in {data.root}"
            for split, place in places.items()
            if not any((root / place).exists() for root in roots)
        ]
    tracked = Path(f"{data.root}.dvc").exists()
    if tracked or Path(data.root) == sample:
        return []
    return [f"data.root is {data.root!r}; no such folder"]


def _write(path: Path, settings: BaseModel) -> None:
    write_json(path, settings.model_dump(mode="json"))


if __name__ == "__main__":
    run(main)
