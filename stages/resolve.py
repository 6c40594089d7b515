"""Check params.yaml and write what each stage reads of it, before any output is touched."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from minet.channels import planes_given
from minet.errors import InputError
from minet.models import (
    MODELS,
    argument_problems,
    build,
    fresh_layers,
    input_problems,
    pretrained_url,
)
from minet.optim import side_at
from minet.params import Params, check_params, own_arguments, read_yaml, recipe
from minet.pretrained import SUFFIXES, head_names, read_weights, weight_problems
from minet.results import write_json
from minet.settings_data import SPLITS, BetonRunSettings, DataSection, DataSettings
from minet.settings_score import CostRunSettings
from minet.settings_train import IMAGENET, RANDOM, RunSettings
from minet.settings_weights import WeightsSettings
from minet.trials import scoring_problems
from stages.cli import parse_paths, run


def main() -> None:
    """Write one JSON per consumer; InputError lists all problems and writes nothing."""
    args = parse_paths(__doc__, "params", "sample", "weights", "out")
    raw = read_yaml(args.params)
    params, problems = check_params(raw, MODELS)
    blocks = raw.get("models")
    problems += [*_argument_problems(blocks), *_weight_problems(blocks)]
    problems += _data_problems(raw, args.sample)
    if params is None or problems:
        raise InputError(*(f"{args.params}: {problem}" for problem in problems))
    _try_model(params, args.weights)
    for name, settings in resolved(params).items():
        write_json(args.out / f"{name}.json", settings.model_dump(mode="json"))


def resolved(params: Params) -> dict[str, BaseModel]:
    """Give each stage's settings: only what it reads, so that nothing else can rerun it."""
    model, own = params.model, recipe(params, params.model)
    chosen: dict[str, Any] = {
        "model": model,
        "builder": MODELS[model],
        "arguments": params.arguments(model),
    }
    return {
        "sample": params.sample,
        "index": DataSettings(**params.data.model_dump(exclude={"cache"})),
        "beton": BetonRunSettings(root=params.data.root, **params.beton.model_dump()),
        "weights": _weights(params),
        "train": RunSettings(
            **chosen,
            seed=params.seed,
            cache=params.data.cache,
            weights=params.weights(model),
            fresh=fresh_layers(model) if params.weights(model) == IMAGENET else (),
            train=own,
        ),
        "evaluate": params.evaluate,
        "cost": CostRunSettings(
            **chosen,
            channels=len(planes_given(own.channels, own.protocol)),
            input_px=params.cost.input_px,
        ),
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
        data = DataSection.model_validate_json(json.dumps(raw.get("data"), default=str))
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


def _weight_problems(blocks: Any) -> Iterator[str]:
    """Look at what each model of the table is to start from."""
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        if name not in MODELS or not isinstance(block, dict) or "weights" not in block:
            continue
        value, url = block["weights"], pretrained_url(name)
        allowed = [RANDOM, *([IMAGENET] if url else [])]
        if value not in allowed and not (isinstance(value, str) and _is_file_name(value)):
            names = f"{', '.join(allowed)} or a file in data/weights ({', '.join(SUFFIXES)})"
            yield f"models.{name}.weights is {value!r}; allowed: {names}"


def _is_file_name(value: str) -> bool:
    return Path(value).name == value and value.endswith(SUFFIXES)


def _weights(params: Params) -> WeightsSettings:
    """Say which file holds the chosen model's weights, and where it can be had."""
    value, url = params.weights(params.model), pretrained_url(params.model)
    if value == RANDOM:
        return WeightsSettings(file=None, url=None)
    if value == IMAGENET and url is not None:
        return WeightsSettings(file=Path(url).name, url=url)
    return WeightsSettings(file=value, url=None)


def _try_model(params: Params, folder: Path) -> None:
    """Run the chosen model on a batch of its recipe's sizes; InputError if it cannot.

    The cost is counted at a size of its own, and weights of one's own must fit.
    """
    model, arguments = params.model, params.arguments(params.model)
    own = recipe(params, model)
    count, planes = min(2, own.batch_size), len(planes_given(own.channels, own.protocol))
    sides = sorted({side_at(own, epoch) for epoch in range(own.epochs)})
    problems = [
        problem
        for side_px in sides
        for problem in input_problems(model, arguments, shape=(count, planes, side_px, side_px))
    ]
    if params.cost.input_px not in sides:
        side_px = params.cost.input_px
        problems += input_problems(model, arguments, shape=(1, planes, side_px, side_px))
    problems += scoring_problems(params.model, params.arguments(params.model), own, params.evaluate)
    problems += _file_problems(params, folder)
    if problems:
        raise InputError(*problems)


def _file_problems(params: Params, folder: Path) -> list[str]:
    """Hold a weight file of one's own against the chosen model, whatever the number of classes.

    A file that DVC tracks may not have been brought yet; then training looks.
    """
    settings, model = _weights(params), params.model
    if settings.file is None or settings.url is not None:
        return []
    what = f"models.{model}.weights is {settings.file!r}"
    path = folder / settings.file
    if not path.exists():
        there = ", ".join(sorted(f.name for f in folder.glob("*") if f.suffix in SUFFIXES))
        tracked = path.with_name(f"{path.name}.dvc").exists()
        return [] if tracked else [f"{what}; no such file in {folder}; there: {there or 'none'}"]
    with torch.device("meta"):
        narrow, wide = (
            build(model, num_classes=classes, **params.arguments(model)) for classes in (2, 3)
        )
    weights = read_weights(path)
    found = weight_problems(narrow, weights, head=head_names(narrow, wide), fresh=())
    return [f"{what}; {problem}" for problem in found]


if __name__ == "__main__":
    run(main)
