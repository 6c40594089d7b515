"""Optimizers follow the recipe."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from minet.train.config import TrainSettings
from minet.train.optim import build_optimizer
from tests.helpers.recipes import make_recipe


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimizer_has_the_kind_rate_and_decay_of_the_recipe(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    recipe = make_recipe(optimizer=name, lr=0.03, weight_decay=0.005, momentum=0.8)
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
    recipe = make_recipe(optimizer="sgd", lr=0.1, momentum=0.5, weight_decay=0.1)
    first = 1 - 0.1 * (2 + 0.1 * 1)
    speed = 0.5 * 2.1 + (2 + 0.1 * first)
    assert _weight_after_steps(recipe, 1) == pytest.approx(first)
    assert _weight_after_steps(recipe, 2) == pytest.approx(first - 0.1 * speed)


def test_adam_and_adamw_decay_as_their_papers_say() -> None:
    """Adam's first step is lr whatever the gradient's size; AdamW shrinks the weight beside it."""
    adam = make_recipe(optimizer="adam", lr=0.1, weight_decay=0.5)
    adamw = make_recipe(optimizer="adamw", lr=0.1, weight_decay=0.5)
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
    recipe = make_recipe(
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
    optimizer = build_optimizer(_network(), make_recipe(optimizer=name))
    assert all(group["fused"] is (name != "sgd") for group in optimizer.param_groups)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_on_a_gpu_is_one_fused_kernel(name: str) -> None:
    optimizer = build_optimizer(_network().cuda(), make_recipe(optimizer=name))
    assert all(group["fused"] for group in optimizer.param_groups)


def test_nesterov_steps_by_hand() -> None:
    """Steps v = 0.5 v + 2, w -= 0.1 (2 + 0.5 v), from w = 1 and v = 0."""
    recipe = make_recipe(optimizer="sgd", lr=0.1, momentum=0.5, nesterov=True)
    first = 1 - 0.1 * (2 + 0.5 * 2)
    assert _weight_after_steps(recipe, 1) == pytest.approx(first)
    assert _weight_after_steps(recipe, 2) == pytest.approx(first - 0.1 * (2 + 0.5 * 3))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_can_be_exempt_from_weight_decay(name: str) -> None:
    """Each parameter is in one group: those of one axis do not decay, the others do."""
    model = _network()
    recipe = make_recipe(optimizer=name, weight_decay=0.1, decay_norm_and_bias=False)
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
    recipe = make_recipe(
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
        model, make_recipe(decay_norm_and_bias=False, weight_decay=0.1)
    ).param_groups
    assert group["weight_decay"] == 0.1


def test_a_model_of_one_axis_parameters_only_can_be_trained() -> None:
    model = nn.BatchNorm2d(3)
    optimizer = build_optimizer(model, make_recipe(decay_norm_and_bias=False, weight_decay=0.1))
    model(torch.randn(4, 3, 2, 2)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, torch.ones(3))
