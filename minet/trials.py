"""Trials of a model without memory: whether it takes what it will be scored on."""

from typing import Any

from minet.channels import planes_given, tested_sets
from minet.models import input_problems
from minet.settings_score import EvaluateSettings
from minet.settings_train import TrainSettings


def scoring_problems(
    model: str, arguments: dict[str, Any], recipe: TrainSettings, evaluate: EvaluateSettings
) -> list[str]:
    """Run a model on the sets of planes that it will be scored on; say what it does not take."""
    sets = tested_sets(recipe.channels, recipe.protocol, evaluate.absent)
    planes = {len(planes_given(channels, protocol)) for channels, protocol in sets.items()}
    shuffles = {
        "train.compat.shuffle_validation": recipe.compat.shuffle_validation,
        "evaluate.channel_shuffle": evaluate.channel_shuffle,
    }
    if any(shuffles.values()) and planes != {3}:
        return [
            f"{name} is {value}; must be 0 where planes are left out"
            for name, value in shuffles.items()
            if value
        ]
    if evaluate.absent == "zero" or len(sets) == 1:
        return []
    side_px = recipe.input_px
    return [
        f"evaluate.absent is {evaluate.absent!r}; {problem}"
        for count in sorted(planes, reverse=True)
        for problem in input_problems(model, arguments, shape=(1, count, side_px, side_px))
    ]
