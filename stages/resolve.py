"""Check params.yaml and write the settings of each stage, before any output changes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet.augment.channels import input_channels
from minet.beton.config import BetonRunSettings
from minet.core.cli import parse_paths, run
from minet.core.errors import InputError
from minet.core.files import atomic_dir, file_digest, read_json, write_json
from minet.core.settings import RESOLVED, flatten
from minet.cost.config import CostRunSettings
from minet.data.config import DataSettings, SampleRunSettings
from minet.dry_run import block_problems, data_problems, run_problems, weights_file_problems
from minet.evaluate.config import EvaluateSettings
from minet.evaluate.summary import PublishSettings
from minet.models.registry import MODELS, pretrained_url, reinitialized_layers
from minet.nn.config import WeightsSettings
from minet.params import Params, check_params, read_yaml, recipe
from minet.train.config import IMAGENET, RANDOM, RunSettings


@dataclass(frozen=True)
class StageSettings:
    """The settings of each stage for one model: only what it reads, so nothing else reruns it."""

    sample: SampleRunSettings
    index: DataSettings
    beton: BetonRunSettings
    weights: WeightsSettings
    train: RunSettings
    evaluate: EvaluateSettings
    cost: CostRunSettings


def main() -> None:
    """Write JSON files into two folders; InputError lists all problems and writes nothing.

    `out` gets the settings of the data and, below `also`, those of the models trained beside the
    chosen one, whose own are written to `run`.
    """
    args = parse_paths(__doc__, "params", "sample", "weights", "scores", "out", "run")
    params = _read_params(args.params, args.sample)
    models = {name: stage_settings(params, name) for name in (params.model, *params.also)}
    problems = list(_model_problems(params, models, args.weights))
    if problems:
        raise InputError(*problems)
    chosen, also = models[params.model], {name: models[name] for name in params.also}
    records = {name: model_records(model) for name, model in models.items()}
    _report_runtime(args.run / "runtime.json", records[params.model]["runtime"])
    data = {
        "sample": chosen.sample.model_copy(update={"drawn": Path(params.data.root) == args.sample}),
        "index": chosen.index,
        "beton": chosen.beton,
        "publish": PublishSettings(models=tuple(models)),
    }
    with atomic_dir(args.out) as folder:
        for name, settings in data.items():
            write_json(folder / f"{name}.json", {RESOLVED: settings.model_dump(mode="json")})
        for name in also:
            write_json(folder / "also" / f"{name}.json", records[name])
    with atomic_dir(args.run) as folder:
        for name, record in records[params.model].items():
            write_json(folder / f"{name}.json", record)
    for file in args.scores.glob("*.json"):  # DVC keeps outputs of stages that are no more
        if file.stem not in also:
            file.unlink()


def stage_settings(params: Params, model: str | None = None) -> StageSettings:
    """Return the settings of each stage for a model, by default the chosen one."""
    model = params.model if model is None else model
    own = recipe(params, model)
    named: dict[str, Any] = {
        "model": model,
        "builder": MODELS[model],
        "arguments": params.arguments(model),
    }
    return StageSettings(
        sample=SampleRunSettings(**params.sample.model_dump()),
        index=DataSettings(**params.data.model_dump(exclude={"cache"})),
        beton=BetonRunSettings(root=params.data.root, **params.beton.model_dump()),
        weights=_weights(params, model),
        train=RunSettings(
            **named,
            seed=params.seed,
            cache=params.data.cache,
            weights=params.weights(model),
            reinitialized=reinitialized_layers(model) if params.weights(model) == IMAGENET else (),
            train=own,
        ),
        evaluate=params.evaluate,
        cost=CostRunSettings(
            **named,
            channels=len(input_channels(own.channels, own.channel_mode)),
            input_px=params.cost.input_px or own.input_px,
        ),
    )


def model_records(settings: StageSettings) -> dict[str, dict[str, Any]]:
    """Return what the stages of a model read, by the names of files.

    `runtime` changes no result, and no stage depends on it. `code` has the digest of the file of
    the model: the stages of the chosen model and of another one are written the same in dvc.yaml,
    where the name of a file of code would differ.
    """
    module = settings.train.builder.partition(":")[0]
    file = Path(*module.split(".")).with_suffix(".py")
    records = {
        "weights": settings.weights.model_dump(mode="json"),
        "train": settings.train.record(),
        "runtime": settings.train.runtime(),
        "evaluate": settings.evaluate.model_dump(mode="json"),
        "cost": settings.cost.model_dump(mode="json"),
        "code": {"file": str(file), "sha256": file_digest(file)},
    }
    return {name: {RESOLVED: record} for name, record in records.items()}


def _read_params(path: Path, sample: Path) -> Params:
    """Read and check params.yaml; InputError lists all problems."""
    raw = read_yaml(path)
    params, problems = check_params(raw, MODELS)
    problems += [*block_problems(raw.get("models")), *data_problems(raw, sample)]
    if params is None or problems:
        raise InputError(*(f"{path}: {problem}" for problem in problems))
    return params


def _model_problems(
    params: Params, models: dict[str, StageSettings], weights: Path
) -> Iterator[str]:
    """Yield problems of dry runs of each model and of files of weights."""
    for name, settings in models.items():
        prefix = "" if name == params.model else f"also {name}: "
        arguments = settings.train.arguments
        problems = [
            *run_problems(settings.train, settings.evaluate, settings.cost),
            *weights_file_problems(settings.weights, name, arguments, weights),
        ]
        yield from (prefix + problem for problem in problems)


def _report_runtime(path: Path, new: dict[str, Any]) -> None:
    """Print which settings have changed since the last run that no stage depends on."""
    if not path.exists():
        return
    old = dict(flatten(read_json(path).get(RESOLVED, {})))
    for key, value in flatten(new[RESOLVED]):
        if value != old.get(key, value):
            name = "data.cache" if key == "cache" else key
            print(
                f"{name} is {json.dumps(value)} (was {json.dumps(old[key])}): it changes no "
                "result, so no model is trained again for it; the next one that trains uses it"
            )


def _weights(params: Params, model: str) -> WeightsSettings:
    """Return which file has a model's weights, and where to download it."""
    value, url = params.weights(model), pretrained_url(model)
    if value == RANDOM:
        return WeightsSettings(file=None, url=None)
    if value == IMAGENET and url is not None:
        return WeightsSettings(file=Path(url).name, url=url)
    return WeightsSettings(file=value, url=None)


if __name__ == "__main__":
    run(main)
