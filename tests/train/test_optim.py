"""Learning rates and image sizes over a run, and optimizers that follow the recipe."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minet.augment.config import AugmentSettings, CompatSettings
from minet.train.config import TrainSettings
from minet.train.optim import build_optimizer
from minet.train.schedule import image_size_at, learning_rate

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


def _recipe(**changes: Any) -> TrainSettings:
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


@pytest.mark.parametrize("epoch", [0.0, 0.01, 3.0, 9.99, 10.0])
def test_constant_does_not_change(epoch: float) -> None:
    assert learning_rate(_recipe(), epoch) == 0.1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize(
    ("epoch", "factor"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (1.5, 0.75), (2.0, 1.0)]
)
def test_warm_up_is_linear_from_zero_to_the_full_rate(
    schedule: str, epoch: float, factor: float
) -> None:
    recipe = _recipe(schedule=schedule, warmup_epochs=2.0, milestones=(5,))
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("warmup_epochs", "epoch", "factor"),
    [
        (0.0, 0.0, 1.0),
        (0.0, 2.5, 0.75),
        (0.0, 5.0, 0.5),
        (0.0, 9.9, 0.01),
        (2.0, 2.0, 1.0),
        (2.0, 4.0, 0.75),
        (2.0, 9.0, 0.125),
        (10.0, 5.0, 0.5),
    ],
)
def test_linear_falls_from_the_end_of_the_warm_up_to_the_end_of_the_run(
    warmup_epochs: float, epoch: float, factor: float
) -> None:
    recipe = _recipe(schedule="linear", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_linear_ends_at_exactly_zero_and_is_positive_before(warmup_epochs: float) -> None:
    recipe = _recipe(schedule="linear", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, 10.0) == 0.0
    assert all(learning_rate(recipe, step / 700) > 0 for step in range(1, 7_000))


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0.0, 1.0), (10 / 4, (1 + 2**-0.5) / 2), (10 / 3, 0.75), (5.0, 0.5), (20 / 3, 0.25)],
)
def test_cosine_without_warm_up(epoch: float, factor: float) -> None:
    assert learning_rate(_recipe(schedule="cosine"), epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(("epoch", "factor"), [(2.0, 1.0), (6.0, 0.5), (14 / 3, 0.75), (9.0, None)])
def test_cosine_falls_from_the_end_of_the_warm_up_to_the_end_of_the_run(
    epoch: float, factor: float | None
) -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=2.0)
    if factor is None:  # an eighth before the end
        factor = (1 - torch.cos(torch.tensor(torch.pi / 8)).item()) / 2
    assert learning_rate(recipe, epoch) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_cosine_ends_at_exactly_zero(warmup_epochs: float) -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=warmup_epochs)
    assert learning_rate(recipe, 10.0) == 0.0


def test_cosine_rises_during_the_warm_up_and_falls_after_it() -> None:
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
    recipe = _recipe(schedule="step", milestones=(4, 7), gamma=0.2)
    assert learning_rate(recipe, epoch) == pytest.approx(rate)


def test_a_step_during_the_warm_up_multiplies_it() -> None:
    recipe = _recipe(schedule="step", milestones=(2,), warmup_epochs=4.0)
    assert learning_rate(recipe, 1.0) == pytest.approx(0.1 * 0.25)
    assert learning_rate(recipe, 3.0) == pytest.approx(0.1 * 0.75 * 0.1)


def test_step_without_milestones_is_constant() -> None:
    assert learning_rate(_recipe(schedule="step"), 9.0) == 0.1


def test_a_warm_up_may_last_the_whole_run() -> None:
    recipe = _recipe(schedule="cosine", warmup_epochs=10.0)
    assert learning_rate(recipe, 5.0) == pytest.approx(0.05)
    assert learning_rate(recipe, 10.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimizer_has_the_kind_rate_and_decay_of_the_recipe(
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
    """Return a single weight, 1 at first, whose loss is 2 w: the gradient is 2 at every step."""
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


def _network() -> nn.Module:
    """Return a small model with parameters of one axis and of more, the same at every call."""
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.PReLU(), *head)


def _trained(
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer], steps: int = 30
) -> nn.Module:
    """Train a model on random gradients, with a rate that changes at each step as in the loop."""
    model = _network()
    optimizer = optimizer_of(model)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step % 7)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return model


PLAIN: dict[str, Any] = {"foreach": False, "fused": False}
REFERENCES: dict[str, tuple[dict[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ({"momentum": 0.0}, torch.optim.SGD),
    "momentum": ({"momentum": 0.9}, torch.optim.SGD),
    "nesterov": ({"momentum": 0.9, "nesterov": True}, torch.optim.SGD),
    "adam": ({}, torch.optim.Adam),
    "adamw": ({}, torch.optim.AdamW),
}


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("kind", REFERENCES)
def test_fused_steps_equal_those_of_torchs_single_tensor_optimizers(
    *, kind: str, decay_norm_and_bias: bool
) -> None:
    """One parameter at a time, after 30 steps of changing rates."""
    options, reference = REFERENCES[kind]
    name = "sgd" if options else kind
    recipe = _recipe(
        optimizer=name, weight_decay=0.05, decay_norm_and_bias=decay_norm_and_bias, **options
    )

    def plain(model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {
                "params": [parameter],
                "weight_decay": 0.05 if decay_norm_and_bias or parameter.ndim > 1 else 0.0,
            }
            for parameter in model.parameters()
        ]
        return reference(groups, lr=0.1, **options, **PLAIN)

    ours, theirs = _trained(lambda model: build_optimizer(model, recipe)), _trained(plain)
    start = dict(_network().named_parameters())
    for (key, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6), key
        assert (one - start[key]).abs().mean() > 1e-3, f"{key} was not trained"


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_is_one_fused_kernel_except_for_sgd_on_a_cpu(name: str) -> None:
    """Where the fused kernel is slower."""
    optimizer = build_optimizer(_network(), _recipe(optimizer=name))
    assert all(group["fused"] is (name != "sgd") for group in optimizer.param_groups)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_on_a_gpu_is_one_fused_kernel(name: str) -> None:
    optimizer = build_optimizer(_network().cuda(), _recipe(optimizer=name))
    assert all(group["fused"] for group in optimizer.param_groups)


def test_nesterov_steps_by_hand() -> None:
    """Steps v = 0.5 v + 2, w -= 0.1 (2 + 0.5 v), from w = 1 and v = 0."""
    recipe = _recipe(optimizer="sgd", lr=0.1, momentum=0.5, nesterov=True)
    first = 1 - 0.1 * (2 + 0.5 * 2)
    assert _weight_after_steps(recipe, 1) == pytest.approx(first)
    assert _weight_after_steps(recipe, 2) == pytest.approx(first - 0.1 * (2 + 0.5 * 3))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_can_be_exempt_from_weight_decay(name: str) -> None:
    """Each parameter is in one group: those of one axis do not decay, the others do."""
    model = _network()
    recipe = _recipe(optimizer=name, weight_decay=0.1, decay_norm_and_bias=False)
    groups = build_optimizer(model, recipe).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed, undecayed = ([names[id(one)] for one in group["params"]] for group in groups)
    assert decayed == ["0.weight", "5.weight"]
    assert undecayed == ["0.bias", "1.weight", "1.bias", "2.weight", "5.bias"]


def test_without_a_gradient_exempt_parameters_do_not_change() -> None:
    """The others shrink by lr times weight_decay a step."""
    model = _network()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    recipe = _recipe(
        optimizer="sgd", lr=0.5, weight_decay=0.1, decay_norm_and_bias=False, momentum=0.0
    )
    optimizer = build_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if parameter.ndim > 1 else 1
        assert torch.allclose(parameter, before[key] * factor, rtol=1e-6, atol=0), key


def test_a_model_without_norms_and_biases_has_one_group() -> None:
    model = nn.Linear(3, 2, bias=False)
    (group,) = build_optimizer(
        model, _recipe(decay_norm_and_bias=False, weight_decay=0.1)
    ).param_groups
    assert group["weight_decay"] == 0.1


def test_a_model_of_one_axis_parameters_only_can_be_trained() -> None:
    model = nn.BatchNorm2d(3)
    optimizer = build_optimizer(model, _recipe(decay_norm_and_bias=False, weight_decay=0.1))
    model(torch.randn(4, 3, 2, 2)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, torch.ones(3))


# --- image sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 3, 9])
@pytest.mark.parametrize(
    ("initial_px", "growth_epochs"), [(0, 0.0), (0, 5.0), (32, 0.0), (64, 5.0)]
)
def test_images_that_do_not_grow_always_have_input_px(
    initial_px: int, growth_epochs: float, epoch: int
) -> None:
    assert image_size_at(_recipe(initial_px=initial_px, growth_epochs=growth_epochs), epoch) == 64


def test_image_sizes_by_hand() -> None:
    """From 128 to 224 px over 6 epochs: by 16 px in each."""
    recipe = _recipe(input_px=224, initial_px=128, growth_epochs=6.0)
    sizes = [image_size_at(recipe, epoch) for epoch in range(10)]
    assert sizes == [128, 144, 160, 176, 192, 208, 224, 224, 224, 224]


@given(data=st.data())
def test_images_grow_linearly_in_steps_of_16_px_up_to_input_px(data: st.DataObject) -> None:
    input_px = data.draw(st.integers(8, 512), label="input_px")
    initial_px = data.draw(st.integers(8, input_px), label="initial_px")
    growth_epochs = data.draw(st.floats(0.01, 10), label="growth_epochs")
    recipe = _recipe(input_px=input_px, initial_px=initial_px, growth_epochs=growth_epochs)
    sizes = [image_size_at(recipe, epoch) for epoch in range(10)]
    assert sizes[0] == initial_px
    assert sizes == sorted(sizes)
    for epoch, image_size in enumerate(sizes):
        if epoch >= growth_epochs:
            assert image_size == input_px
            continue
        linear = initial_px + (input_px - initial_px) * epoch / growth_epochs
        assert (image_size - initial_px) % 16 == 0
        assert linear - 16 - 1e-6 < image_size <= min(linear + 1e-6, input_px)
