"""Check params.yaml and write the settings of each stage, before any output changes."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from minet.augment.channels import input_channels
from minet.beton.config import BetonRunSettings
from minet.core.cli import parse_paths, run
from minet.core.errors import InputError
from minet.core.files import write_json
from minet.cost.config import CostRunSettings
from minet.data.config import DataSettings, SampleSettings
from minet.dry_run import block_problems, data_problems, run_problems, weights_file_problems
from minet.evaluate.config import EvaluateSettings
from minet.models.registry import MODELS, pretrained_url, reinitialized_layers
from minet.nn.config import WeightsSettings
from minet.params import Params, check_params, read_yaml, recipe
from minet.train.config import IMAGENET, RANDOM, RunSettings


@dataclass(frozen=True)
class StageSettings:
    """The settings of each stage, one JSON each: only what it reads, so nothing else reruns it."""

    sample: SampleSettings
    index: DataSettings
    beton: BetonRunSettings
    weights: WeightsSettings
    train: RunSettings
    evaluate: EvaluateSettings
    cost: CostRunSettings


def main() -> None:
    """Write one JSON per stage; InputError lists all problems and writes nothing."""
    args = parse_paths(__doc__, "params", "sample", "weights", "out")
    raw = read_yaml(args.params)
    params, problems = check_params(raw, MODELS)
    problems += [*block_problems(raw.get("models")), *data_problems(raw, args.sample)]
    if params is None or problems:
        raise InputError(*(f"{args.params}: {problem}" for problem in problems))
    stages = stage_settings(params)
    problems = [
        *run_problems(stages.train, stages.evaluate, stages.cost),
        *weights_file_problems(stages.weights, params.model, stages.train.arguments, args.weights),
    ]
    if problems:
        raise InputError(*problems)
    for field in fields(stages):
        settings = getattr(stages, field.name)
        write_json(args.out / f"{field.name}.json", settings.model_dump(mode="json"))


def stage_settings(params: Params) -> StageSettings:
    """Return the settings of each stage."""
    model, own = params.model, recipe(params, params.model)
    chosen: dict[str, Any] = {
        "model": model,
        "builder": MODELS[model],
        "arguments": params.arguments(model),
    }
    return StageSettings(
        sample=params.sample,
        index=DataSettings(**params.data.model_dump(exclude={"cache"})),
        beton=BetonRunSettings(root=params.data.root, **params.beton.model_dump()),
        weights=_weights(params),
        train=RunSettings(
            **chosen,
            seed=params.seed,
            cache=params.data.cache,
            weights=params.weights(model),
            reinitialized=reinitialized_layers(model) if params.weights(model) == IMAGENET else (),
            train=own,
        ),
        evaluate=params.evaluate,
        cost=CostRunSettings(
            **chosen,
            channels=len(input_channels(own.channels, own.channel_mode)),
            input_px=params.cost.input_px or own.input_px,
        ),
    )


def _weights(params: Params) -> WeightsSettings:
    """Return which file has the chosen model's weights, and where to download it."""
    value, url = params.weights(params.model), pretrained_url(params.model)
    if value == RANDOM:
        return WeightsSettings(file=None, url=None)
    if value == IMAGENET and url is not None:
        return WeightsSettings(file=Path(url).name, url=url)
    return WeightsSettings(file=value, url=None)


if __name__ == "__main__":
    run(main)
