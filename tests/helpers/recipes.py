"""A plain recipe for tests of what follows from recipes."""

from typing import Any

from minet.augment.config import AugmentSettings, CompatSettings
from minet.train.config import TrainSettings

AUGMENT = AugmentSettings(
    flip=0.5,
    crop_scale=(0.5, 1.0),
    crop_ratio=(0.75, 1.5),
    rotation_degrees=0.0,
    channel_shuffle=0.0,
    channel_dropout=0.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
)
COMPAT = CompatSettings(wrap_pixels=False, random_test_crop=False, shuffle_validation=0.0)


def make_recipe(**changes: Any) -> TrainSettings:
    """Return a recipe of 10 epochs with Adam at a constant rate of 0.1, with some changes."""
    settings: dict[str, Any] = {
        "epochs": 10,
        "batch_size": 32,
        "accumulation_steps": 1,
        "channels": "RGB",
        "channel_mode": "zero",
        "input_px": 64,
        "initial_px": 0,
        "growth_epochs": 0.0,
        "optimizer": "adam",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "decay_norm_and_bias": True,
        "max_grad_norm": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "milestones": (),
        "gamma": 0.1,
        "label_smoothing": 0.0,
        "ema_decay": 0.0,
        "selection_metric": "loss",
        "normalize": "dataset",
        "precision": "auto",
        "compile": "auto",
        "deterministic": False,
        "processes": 1,
        "threads": 0,
        "save_every_s": 60.0,
        "tensorboard": False,
        "dvclive": False,
        "augment": AUGMENT,
        "compat": COMPAT,
    }
    return TrainSettings(**settings | changes)
