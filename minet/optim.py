"""Optimizers and learning rates as functions of the recipe and the step."""

import math

import torch
from torch import nn

from minet.settings_train import TrainSettings


def build_optimizer(model: nn.Module, recipe: TrainSettings) -> torch.optim.Optimizer:
    """Build the recipe's optimizer over all parameters; betas of Adam are the paper's."""
    parameters = model.parameters()
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def learning_rate(recipe: TrainSettings, epoch: float) -> float:
    """Learning rate at a moment of the run, in epochs from 0 to `recipe.epochs`.

    A step takes the rate of its middle: no step has rate 0, at either end of the run.
    A linear warm-up over `warmup_epochs` multiplies the schedule: cosine falls to 0 at the end,
    step multiplies by `step_factor` at each of `step_epochs`, constant stays.
    """
    warm = min(1.0, epoch / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    if recipe.schedule == "cosine":
        cooled = max(0.0, epoch - recipe.warmup_epochs) / max(
            1e-9, recipe.epochs - recipe.warmup_epochs
        )
        return recipe.lr * warm * (1 + math.cos(math.pi * min(1.0, cooled))) / 2
    if recipe.schedule == "step":
        passed = sum(epoch >= milestone for milestone in recipe.step_epochs)
        return recipe.lr * warm * recipe.step_factor**passed
    return recipe.lr * warm
