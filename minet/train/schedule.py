"""Learning rate and image size as functions of the recipe and the time in the run."""

import math

from minet.train.config import TrainSettings

_SIZE_STEP_PX = 16  # by which growing images grow


def learning_rate(recipe: TrainSettings, epoch: float) -> float:
    """Return the learning rate at a time in epochs, from 0 to `recipe.epochs`.

    The loop asks for the middle of each step, so that no step has rate 0 at either end of the run.
    A linear warm-up over `warmup_epochs` multiplies the schedule: cosine (arXiv:1608.03983, without
    restarts) and linear fall to 0 at the end, step multiplies by `gamma` at each of `milestones`,
    constant stays.
    """
    warmup = min(1.0, epoch / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    if recipe.schedule == "step":
        passed = sum(epoch >= milestone for milestone in recipe.milestones)
        return recipe.lr * warmup * recipe.gamma**passed
    if recipe.schedule == "constant":
        return recipe.lr * warmup
    elapsed = max(0.0, epoch - recipe.warmup_epochs)
    progress = min(1.0, elapsed / max(1e-9, recipe.epochs - recipe.warmup_epochs))
    factor = (1 + math.cos(math.pi * progress)) / 2 if recipe.schedule == "cosine" else 1 - progress
    return recipe.lr * warmup * factor


def image_size_at(recipe: TrainSettings, epoch: int) -> int:
    """Return the side of the training images in an epoch, in pixels.

    It grows linearly from `initial_px` to `input_px` over `growth_epochs`, in steps of 16 px:
    progressive resizing (fast.ai's DAWNBench entry of 2018; EfficientNetV2, arXiv:2104.00298,
    without its growing regularization). Validation images always have `input_px`.
    """
    if not recipe.initial_px or epoch >= recipe.growth_epochs:
        return recipe.input_px
    grown_px = (recipe.input_px - recipe.initial_px) * epoch / recipe.growth_epochs
    return min(recipe.input_px, recipe.initial_px + int(grown_px // _SIZE_STEP_PX) * _SIZE_STEP_PX)
