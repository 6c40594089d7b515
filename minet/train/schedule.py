"""Learning rate and image size as functions of the recipe and the moment of the run."""

import math

from minet.train.config import TrainSettings

_SIZE_STEP_PX = 16  # in which the side of growing images grows


def learning_rate(recipe: TrainSettings, epoch: float) -> float:
    """Learning rate at a moment of the run, in epochs from 0 to `recipe.epochs`.

    A step takes the rate of its middle: no step has rate 0, at either end of the run.
    A linear warm-up over `warmup_epochs` multiplies the schedule: cosine and linear fall to 0 at
    the end, step multiplies by `gamma` at each of `milestones`, constant stays.
    """
    warm = min(1.0, epoch / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    if recipe.schedule == "step":
        passed = sum(epoch >= milestone for milestone in recipe.milestones)
        return recipe.lr * warm * recipe.gamma**passed
    if recipe.schedule == "constant":
        return recipe.lr * warm
    cooling = max(0.0, epoch - recipe.warmup_epochs)
    cooled = min(1.0, cooling / max(1e-9, recipe.epochs - recipe.warmup_epochs))
    left = (1 + math.cos(math.pi * cooled)) / 2 if recipe.schedule == "cosine" else 1 - cooled
    return recipe.lr * warm * left


def image_size_at(recipe: TrainSettings, epoch: int) -> int:
    """Side of the images in an epoch, in pixels: from `initial_px` up to `input_px`.

    It grows linearly over `growth_epochs`, in steps of 16 px (1904.11486 and others train small
    images first); validation always sees `input_px`.
    """
    if not recipe.initial_px or epoch >= recipe.growth_epochs:
        return recipe.input_px
    grown = (recipe.input_px - recipe.initial_px) * epoch / recipe.growth_epochs
    return min(recipe.input_px, recipe.initial_px + int(grown // _SIZE_STEP_PX) * _SIZE_STEP_PX)
