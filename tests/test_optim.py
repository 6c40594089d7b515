"""Learning rates at chosen moments, and optimizers that get what the recipe says."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from minet.optim import build_optimizer, learning_rate
from minet.settings_train import AugmentSettings, TrainSettings

AUGMENT = AugmentSettings(
    flip=0.5,
    crop_scale=(0.5, 1.0),
    crop_ratio=(0.75, 1.5),
    rotation_degrees=0.0,
    channel_shuffle=0.0,
)


def _recipe(**changes: Any) -> TrainSettings:
    settings: dict[str, Any] = {
        "epochs": 10,
        "batch_size": 32,
        "input_px": 64,
        "optimizer": "adam",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "step_epochs": (),
        "step_factor": 0.1,
        "label_smoothing": 0.0,
        "best_by": "loss",
        "normalize": "dataset",
        "deterministic": False,
        "save_every_s": 60.0,
        "augment": AUGMENT,
    }
    return TrainSettings(**settings | changes)


@pytest.mark.parametrize("epoch", [0.0, 0.01, 3.0, 9.99, 10.0])
def test_constant_stays(epoch: float) -> None:
    assert learning_rate(_recipe(), epoch) == 0.1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize(
    ("epoch", "share"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.5, 0.75), (2.0, 1.0)]
)
def test_warm_up_is_linear_from_nothing_to_the_full_rate(
    schedule: str, epoch: float, share: float
) -> None:
    recipe = _recipe(schedule=schedule, warmup_epochs=2.0, step_epochs=(5,))
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * share)


@pytest.mark.parametrize(
    ("epoch", "share"),
    [(0.0, 1.0), (10 / 4, (1 + 2**-0.5) / 2), (10 / 3, 0.75), (5.0, 0.5), (20 / 3, 0.25)],
)
def test_cosine_without_warm_up(epoch: float, share: float) -> None:
    assert learning_rate(_recipe(schedule="cosine"), epoch) == pytest.approx(0.1 * share)


@pytest.mark.parametrize(("epoch", "share"), [(2.0, 1.0), (6.0, 0.5), (14 / 3, 0.75), (9.0, None)])
def test_cosine_falls_over_what_the_warm_up_leaves(epoch: float, share: float | None) -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=2.0)
    if share is None:  # an eighth before the end
        share = (1 - torch.cos(torch.tensor(torch.pi / 8)).item()) / 2
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * share)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_cosine_ends_at_exactly_nothing(warmup_epochs: float) -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, 10.0) == 0.0


def test_cosine_rises_through_the_warm_up_and_falls_after_it() -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=2.0)
    rates = [learning_rate(recipe, step / 50) for step in range(501)]
    top = rates.index(max(rates))
    assert top == 100
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.0011  # no jump


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0.0, 0.1), (3.999, 0.1), (4.0, 0.02), (6.999, 0.02), (7.0, 0.004), (10.0, 0.004)],
)
def test_step_multiplies_at_each_milestone(epoch: float, rate: float) -> None:
    recipe = _recipe(schedule="step", step_epochs=(4, 7), step_factor=0.2)
    assert learning_rate(recipe, epoch) == pytest.approx(rate)


def test_step_within_the_warm_up_multiplies_it() -> None:
    recipe = _recipe(schedule="step", step_epochs=(2,), warmup_epochs=4.0)
    assert learning_rate(recipe, 1.0) == pytest.approx(0.1 * 0.25)
    assert learning_rate(recipe, 3.0) == pytest.approx(0.1 * 0.75 * 0.1)


def test_step_without_milestones_is_constant() -> None:
    assert learning_rate(_recipe(schedule="step"), 9.0) == 0.1


def test_a_warm_up_as_long_as_the_run_is_all_there_is() -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=10.0)
    assert learning_rate(recipe, 5.0) == pytest.approx(0.05)
    assert learning_rate(recipe, 10.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimizer_is_the_recipes_with_its_rate_and_decay(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    recipe = _recipe(optimizer=name, lr=0.03, weight_decay=0.005, momentum=0.8)
    optimizer = build_optimizer(model, recipe)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.03
    assert group["weight_decay"] == 0.005
    expected = {"momentum": 0.8} if name == "sgd" else {"betas": (0.9, 0.999)}
    assert {key: group[key] for key in expected} == expected
    assert {id(parameter) for parameter in group["params"]} == {
        id(parameter) for parameter in model.parameters()
    }


def _weight_after_steps(recipe: TrainSettings, steps: int) -> float:
    """A single weight, 1 at first, whose loss is 2 w: the gradient is 2 at every step."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = build_optimizer(model, recipe)
    for _ in range(steps):
        optimizer.zero_grad()
        (2 * model.weight).sum().backward()
        optimizer.step()
    return model.weight.item()


def test_sgd_steps_by_hand() -> None:
    """Steps v = 0.5 v + (2 + 0.1 w), w -= 0.1 v, from w = 1 and v = 0."""
    recipe = _recipe(optimizer="sgd", lr=0.1, momentum=0.5, weight_decay=0.1)
    first = 1 - 0.1 * (2 + 0.1 * 1)
    speed = 0.5 * 2.1 + (2 + 0.1 * first)
    assert _weight_after_steps(recipe, 1) == pytest.approx(first)
    assert _weight_after_steps(recipe, 2) == pytest.approx(first - 0.1 * speed)


def test_adam_and_adamw_decay_as_their_papers_say() -> None:
    """Adam's first step is lr whatever the gradient's size; AdamW shrinks the weight beside it."""
    adam = _recipe(optimizer="adam", lr=0.1, weight_decay=0.5)
    adamw = _recipe(optimizer="adamw", lr=0.1, weight_decay=0.5)
    assert _weight_after_steps(adam, 1) == pytest.approx(0.9)
    assert _weight_after_steps(adamw, 1) == pytest.approx(1 - 0.1 * 0.5 - 0.1)
