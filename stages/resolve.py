"""Check params.yaml and write what each stage reads of it, before any output is touched."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from minet.errors import InputError
from minet.models import MODELS, argument_problems, input_problems
from minet.params import Params, check_params, own_arguments, read_yaml, recipe
from minet.results import write_json
from minet.settings_data import SPLITS, BetonRunSettings, DataSettings
from minet.settings_score import CostRunSettings
from minet.settings_train import RunSettings
from stages.cli import parse_paths, run


def main() -> None:
    """Write one JSON per consumer; InputError lists all problems and writes nothing."""
    args = parse_paths(__doc__, "params", "sample", "out")
    raw = read_yaml(args.params)
    params, problems = check_params(raw, MODELS)
    problems += [*_argument_problems(raw.get("models")), *_data_problems(raw, args.sample)]
    if params is None or problems:
        raise InputError(*(f"{args.params}: {problem}" for problem in problems))
    _try_model(params)
    for name, settings in resolved(params).items():
        write_json(args.out / f"{name}.json", settings.model_dump(mode="json"))


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


def _argument_problems(blocks: Any) -> Iterator[str]:
    """Try the arguments of every model in the table; other names are reported elsewhere."""
    if isinstance(blocks, dict):
        for name, block in blocks.items():
            if name in MODELS and isinstance(block, dict):
                yield from argument_problems(name, own_arguments(block))


def _data_problems(raw: Mapping[str, Any], sample: Path) -> Iterator[str]:
    """Look for the images and lists, which DVC would miss only after deleting the index.

    The sample is made when it is needed. A queued experiment runs in a folder of its own, to which
    DVC brings only what it tracks: there the original tree counts.
    """
    try:
        data = DataSettings.model_validate_json(json.dumps(raw.get("data"), default=str))
    except ValidationError:
        return  # reported with the other sections
    trees = (Path(), Path(os.environ.get("DVC_ROOT", ".")))
    roots = [tree / data.root for tree in trees if (tree / data.root).is_dir()]
    if not roots and not Path(f"{data.root}.dvc").exists() and Path(data.root) != sample:
        yield f"data.root is {data.root!r}; no such folder"
    fits, kind = (Path.is_dir, "folder") if data.layout == "folders" else (Path.is_file, "file")
    for split in SPLITS if roots else ():
        place = str(getattr(data, split))
        if not any(fits(root / place) for root in roots):
            yield f"data.{split} is {place!r}; no such {kind} in {data.root} (layout {data.layout})"


def _try_model(params: Params) -> None:
    """Run the chosen model on a batch of its recipe's size; InputError if it cannot."""
    model, arguments = params.model, params.arguments(params.model)
    own = recipe(params, model)
    count = min(2, own.batch_size)
    problems = input_problems(model, arguments, shape=(count, 3, own.input_px, own.input_px))
    if problems:
        raise InputError(*problems)


if __name__ == "__main__":
    run(main)
