"""Checks of a run before any output changes: models run on torch's meta device, without memory.

Each function returns or yields problems as text.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from minet.augment.channels import input_channels, tested_sets
from minet.core.errors import InputError, check_installed
from minet.core.settings import parse
from minet.cost.config import CostRunSettings
from minet.data.config import SPLITS
from minet.evaluate.config import EvaluateSettings
from minet.models.registry import (
    MODELS,
    argument_problems,
    build,
    input_problems,
    pretrained_url,
)
from minet.nn.config import IMAGENET, RANDOM, WeightsSettings
from minet.nn.weights import SUFFIXES, head_names, read_weights, weight_problems
from minet.params import DataSection, own_arguments
from minet.train.config import RunSettings, TrainSettings
from minet.train.schedule import image_size_at


def block_problems(blocks: Any) -> Iterator[str]:
    """Check the arguments and `weights` of each model under `models`.

    `minet.params` reports blocks that are not of a model.
    """
    if not isinstance(blocks, dict):
        return
    known = {
        name: block for name, block in blocks.items() if name in MODELS and isinstance(block, dict)
    }
    for name, block in known.items():
        yield from argument_problems(name, own_arguments(block))
    for name, block in known.items():
        if "weights" in block:
            yield from _weights_value_problems(name, block["weights"])


def data_problems(raw: Mapping[str, Any], sample: Path) -> Iterator[str]:
    """Check that images and lists exist, which DVC would notice only after deleting the index.

    The sample is generated when needed. A queued experiment runs in a folder that has only what DVC
    tracks, so files of the original tree (DVC_ROOT) count as well.
    """
    try:
        data = parse(DataSection, raw.get("data"))
    except ValidationError:
        return  # `minet.params` reports it
    trees = (Path(), Path(os.environ.get("DVC_ROOT", ".")))
    roots = [tree / data.root for tree in trees if (tree / data.root).is_dir()]
    if not roots and not Path(f"{data.root}.dvc").exists() and Path(data.root) != sample:
        yield f"data.root is {data.root!r}; no such folder"
    exists, kind = (Path.is_dir, "folder") if data.layout == "folders" else (Path.is_file, "file")
    for split in SPLITS if roots else ():
        path = str(getattr(data, split))
        if not any(exists(root / path) for root in roots):
            yield f"data.{split} is {path!r}; no such {kind} in {data.root} (layout {data.layout})"


def run_problems(run: RunSettings, evaluate: EvaluateSettings, cost: CostRunSettings) -> list[str]:
    """Run a model on batches (N, C, S, S) of training, evaluation and cost."""
    recipe, model, arguments = run.train, run.model, run.arguments
    channels = len(input_channels(recipe.channels, recipe.channel_mode))
    sizes = sorted({image_size_at(recipe, epoch) for epoch in range(recipe.epochs)})
    shapes = [(min(2, recipe.batch_size), channels, size, size) for size in sizes]
    if (cost.channels, cost.input_px) not in {shape[1:3] for shape in shapes}:
        shapes.append((1, cost.channels, cost.input_px, cost.input_px))
    problems = [text for shape in shapes for text in input_problems(model, arguments, shape=shape)]
    return [*problems, *_scoring_problems(run, evaluate), *_logger_problems(recipe)]


def weights_file_problems(
    settings: WeightsSettings, model: str, arguments: dict[str, Any], folder: Path
) -> list[str]:
    """Check that a user's weight file fits the model, whatever the number of classes.

    A file that DVC tracks may not be checked out yet; then training checks it.
    """
    if settings.file is None or settings.url is not None:
        return []
    what = f"models.{model}.weights is {settings.file!r}"
    path = folder / settings.file
    if not path.exists():
        files = ", ".join(sorted(f.name for f in folder.glob("*") if f.suffix in SUFFIXES))
        tracked = path.with_name(f"{path.name}.dvc").exists()
        return [] if tracked else [f"{what}; no such file in {folder}; found: {files or 'none'}"]
    with torch.device("meta"):
        narrow, wide = (build(model, num_classes=classes, **arguments) for classes in (2, 3))
    weights = read_weights(path)
    head = head_names(narrow, wide)
    problems = weight_problems(narrow, weights, head=head, reinitialized=())
    return [f"{what}; {problem}" for problem in problems]


def _weights_value_problems(name: str, value: Any) -> Iterator[str]:
    allowed = [RANDOM, *([IMAGENET] if pretrained_url(name) else [])]
    if value not in allowed and not (isinstance(value, str) and _is_file_name(value)):
        names = f"{', '.join(allowed)} or a file in data/weights ({', '.join(SUFFIXES)})"
        yield f"models.{name}.weights is {value!r}; allowed: {names}"


def _is_file_name(value: str) -> bool:
    return Path(value).name == value and value.endswith(SUFFIXES)


def _logger_problems(recipe: TrainSettings) -> Iterator[str]:
    """Look for the packages of the loggers that are on, without importing them."""
    for name in ("tensorboard", "dvclive"):
        if getattr(recipe, name):
            try:
                check_installed("loggers", name)
            except InputError as error:
                yield from (f"train.{name} is true; {problem}" for problem in error.problems)


def _scoring_problems(run: RunSettings, evaluate: EvaluateSettings) -> list[str]:
    """Run a model on each number of channels that it will be scored on."""
    recipe = run.train
    sets = tested_sets(recipe.channels, recipe.channel_mode, evaluate.missing_channels)
    counts = {len(input_channels(channels, mode)) for channels, mode in sets.items()}
    shuffles = {
        "train.compat.shuffle_validation": recipe.compat.shuffle_validation,
        "evaluate.channel_shuffle": evaluate.channel_shuffle,
    }
    if any(shuffles.values()) and counts != {3}:
        return [
            f"{name} is {value}; must be 0 where channels are dropped"
            for name, value in shuffles.items()
            if value
        ]
    if evaluate.missing_channels == "zero" or len(sets) == 1:
        return []
    shapes = [
        (1, count, recipe.input_px, recipe.input_px) for count in sorted(counts, reverse=True)
    ]
    return [
        f"evaluate.missing_channels is {evaluate.missing_channels!r}; {problem}"
        for shape in shapes
        for problem in input_problems(run.model, run.arguments, shape=shape)
    ]
