"""Every architecture: counts, shapes, gradients, seeds, weights on disk, errors."""

import copy
import importlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.core.errors import InputError
from minet.cost.counter import count_costs
from minet.models.registry import MODELS, argument_problems, build
from tests.helpers.pinned import PINNED, Pin

ANY_CHANNELS = {"dwg_any", "pool_attention"}
# parameters whose first gradient is 0: those behind the gate `gamma` of attention, initially 0
GATED = {"parallel": r"0\.branches\.1\.(query|key|value)\..*"}
# parameters whose gradient is 0 up to rounding: biases that a batch norm cancels
CANCELLED = {
    "cool": r"\d\.(main\.0|shortcut)\.0\.bias",
    "resnet18_slides": r"layer\d\.\d\.(conv2|downsample\.0)\.bias",
}
CASES = [(name, pin) for name in MODELS for pin in PINNED.get(name, [])]
CASE_IDS = [
    "-".join(map(str, (name, pin.channels, *pin.arguments.values()))) for name, pin in CASES
]


def _built(name: str, pin: Pin, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, num_classes=50, **pin.arguments)


@cache
def _original(name: str, index: int) -> nn.Module:
    return _built(name, PINNED[name][index])


def _model(name: str, pin: Pin) -> nn.Module:
    """Return a copy of the model of seed 0, which is faster than building it again."""
    return copy.deepcopy(_original(name, PINNED[name].index(pin)))


def _images(count: int, channels: int, image_size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        count, channels, image_size, image_size, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_pinned_row(name: str) -> None:
    """A new model needs its counts in the table."""
    if not PINNED.get(name):
        record = count_costs(build(name, num_classes=50), channels=3, image_size=224)
        parameters = record["parameters"]
        macs_millions = (record["macs_convolution"] + record["macs_linear"]) / 1e6
        pytest.fail(f'add to PINNED: "{name}": [Pin({parameters:_}, {macs_millions:_.3f})],')


def test_every_pinned_row_has_a_model() -> None:
    assert PINNED.keys() == MODELS.keys()


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_counts_equal_the_pinned_ones(name: str, pin: Pin) -> None:
    """Parameters exactly; multiply-adds of convolutions and linear layers within 0.1 %."""
    record = count_costs(_model(name, pin), channels=pin.channels, image_size=224)
    assert record["parameters"] == pin.parameters
    macs = record["macs_convolution"] + record["macs_linear"]
    assert macs == pytest.approx(pin.macs_millions * 1e6, rel=1e-3)
    assert record["macs"] == macs + record["macs_product"]


@pytest.mark.parametrize("name", MODELS)
def test_docstring_states_the_pinned_counts(name: str) -> None:
    text = " ".join(str(importlib.import_module(f"minet.models.{name}").__doc__).split())
    pin = PINNED[name][0]
    assert f"{pin.parameters:,} parameters" in text
    assert f"{pin.macs_millions:,.1f} M multiply-adds" in text


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_output_has_a_row_per_image_and_a_column_per_class(name: str, pin: Pin) -> None:
    model = _model(name, pin).eval()
    for image_size in {224, pin.other_px} - {None}:
        with torch.inference_mode():
            logits = model(_images(2, pin.channels, image_size))
        assert logits.shape == (2, 50)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


def test_a_model_of_a_fixed_image_size_rejects_another() -> None:
    fixed = {name: pin for name, pin in CASES if pin.other_px is None}
    assert fixed.keys() == {"resnet34_flatten"}
    for name, pin in fixed.items():
        with pytest.raises(ValueError, match="takes images of 224 x 224 px only, not 96 x 128"):
            _model(name, pin)(torch.zeros(1, 3, 96, 128))


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_every_parameter_has_a_finite_and_non_zero_gradient(name: str, pin: Pin) -> None:
    """In float64, so that a gradient cannot be a rounding error."""
    model = _model(name, pin).train().double()
    labels = torch.tensor([0, 17, 33, 49])
    F.cross_entropy(model(_images(4, pin.channels, pin.small_px).double()), labels).backward()
    zero = set()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if not parameter.grad.any():
            zero.add(key)
        elif re.fullmatch(CANCELLED.get(name, "none"), key):
            assert parameter.grad.abs().max() < 1e-13, key
            zero.add(key)
    patterns = "|".join(table[name] for table in (GATED, CANCELLED) if name in table)
    explained = {key for key, _ in model.named_parameters() if re.fullmatch(patterns or "-", key)}
    assert zero == explained


def test_an_open_gate_passes_gradients_to_the_layers_behind_it() -> None:
    model = build("parallel", num_classes=50).train()
    with torch.no_grad():
        model.get_parameter("0.branches.1.gamma").fill_(1)
    F.cross_entropy(model(_images(4, 3, 64)), torch.tensor([0, 17, 33, 49])).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_another_number_of_channels_is_accepted_or_rejected_by_name(
    name: str, channels: int
) -> None:
    """Before the first layer, for any size; on the meta device nothing is computed."""
    with torch.device("meta"):
        model = build(name, num_classes=50).eval()
        images = torch.empty(2, channels, 224, 224)
    if channels == 3 or name in ANY_CHANNELS:
        assert model(images).shape == (2, 50)
    else:
        expected = f"^{name} takes images of 3 channels, not {channels}$"
        with pytest.raises(InputError, match=expected):
            model(images)


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_initial_weights_are_a_function_of_the_seed(name: str, pin: Pin) -> None:
    one, again = _model(name, pin).state_dict(), _built(name, pin).state_dict()
    other = _built(name, pin, seed=1).state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_checking_arguments_uses_no_random_number(name: str, pin: Pin) -> None:
    """The check builds the model on the meta device; the initial weights must not change."""
    builder = getattr(importlib.import_module(f"minet.models.{name}"), name)
    torch.manual_seed(0)
    direct = builder(num_classes=50, **pin.arguments).state_dict()
    checked = _model(name, pin).state_dict()
    assert all(torch.equal(direct[key], checked[key]) for key in direct)


@pytest.mark.parametrize(("name", "pin"), CASES, ids=CASE_IDS)
def test_weights_survive_safetensors(name: str, pin: Pin, tmp_path: Path) -> None:
    """A model with other weights that loads the file returns bit-identical logits."""
    model, other = _model(name, pin).train(), _model(name, pin)
    with torch.no_grad():
        model(_images(2, pin.channels, pin.small_px))  # changes the running means
        for parameter in other.parameters():
            parameter.zero_()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    images = _images(2, pin.channels, pin.small_px, seed=1)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), other.eval()(images))


@pytest.mark.parametrize("name", MODELS)
def test_name_file_and_builder_are_the_same(name: str) -> None:
    assert MODELS[name] == f"minet.models.{name}:{name}"
    assert callable(getattr(importlib.import_module(f"minet.models.{name}"), name))


def test_every_file_of_models_is_in_the_table() -> None:
    folder = Path(importlib.import_module("minet.models").__file__ or "").parent
    assert {file.stem for file in folder.glob("*.py")} - {"__init__", "registry"} == set(MODELS)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("rrdb", {"growth": 0}, "models.rrdb: growth is 0; must be at least 1"),
        ("rrdb_rnn", {"times": 0}, "models.rrdb_rnn: times is 0; must be at least 1"),
        ("cnn3", {"channels": 0}, "models.cnn3: channels is 0; must be at least 1"),
        ("cnn3", {"channels": -3}, "models.cnn3: channels is -3; must be at least 1"),
        (
            "rrdb",
            {"growth": "32"},
            "models.rrdb.growth is '32'; input should be a valid integer",
        ),
        (
            "rrdb",
            {"growth": 1.5},
            "models.rrdb.growth is 1.5; input should be a valid integer",
        ),
        (
            "rrdb",
            {"growth": True},
            "models.rrdb.growth is True; input should be a valid integer",
        ),
        (
            "rrdb",
            {"grwoth": 8},
            "models.rrdb.grwoth is not a setting; did you mean growth? allowed: growth",
        ),
        (
            "parallel",
            {"cnn": False, "attention": False, "rrdb": False, "graph": False},
            "models.parallel: cnn, attention, rrdb and graph are all false; one must be true",
        ),
        ("cool", {"dropout": 1.5}, "models.cool: dropout is 1.5; must be from 0 to 1"),
        (
            "dynamic_resnet18",
            {"kernels": 0},
            "models.dynamic_resnet18: kernels is 0; must be at least 1",
        ),
        (
            "dynamic_resnet18",
            {"temperature": 0.5},
            "models.dynamic_resnet18: temperature is 0.5; must be at least 1, to which it falls",
        ),
        ("resnet18", {"growth": 8}, "models.resnet18.growth is not a setting; allowed: none"),
    ],
)
def test_an_invalid_argument_is_reported_with_the_allowed_values(
    name: str, arguments: dict[str, Any], problem: str
) -> None:
    assert argument_problems(name, arguments) == [problem]
    with pytest.raises(InputError) as caught:
        build(name, num_classes=50, **arguments)
    assert caught.value.problems == (problem,)


def test_all_invalid_arguments_are_reported_together() -> None:
    with pytest.raises(InputError) as caught:
        build("rrdb", num_classes=50, growth="8", times=2)
    text = str(caught.value)
    assert "models.rrdb.growth is '8'" in text
    assert "models.rrdb.times is not a setting" in text


def test_an_unknown_model_is_rejected_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(InputError) as caught:
        build("resnet-18", num_classes=50)
    allowed = ", ".join(sorted(MODELS))
    expected = f"unknown model 'resnet-18'; did you mean resnet18? allowed: {allowed}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("num_classes", [2, 5, 1000])
def test_the_output_has_the_number_of_classes(num_classes: int) -> None:
    model = build("rrdb", num_classes=num_classes).eval()
    with torch.inference_mode():
        assert model(_images(1, 3, 32)).shape == (1, num_classes)


def test_valid_arguments_have_no_problems() -> None:
    assert argument_problems("rrdb", {"growth": 1}) == []
    assert argument_problems("rrdb", {}) == []


@pytest.mark.parametrize("times", [1, 3])
def test_repeats_of_rrdb_rnn_share_their_weights(times: int) -> None:
    model = build("rrdb_rnn", num_classes=50, times=times)
    assert sum(parameter.numel() for parameter in model.parameters()) == 74_354


def test_growth_of_rrdb_widens_the_dense_layer() -> None:
    """Stem 9,536; norms 2 (64 + C); 3x3 576 g; 1x1 C^2; head 50 (C + 1), with C = 64 + g."""
    growth, channels = 8, 72
    expected = 9_536 + 2 * 64 + 576 * growth + 2 * channels + channels**2 + 50 * (channels + 1)
    model = build("rrdb", num_classes=50, growth=growth)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def _norm_relu(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    scale, shift, mean, variance = (next(weights) for _ in range(4))
    return F.relu(F.batch_norm(images, mean, variance, scale, shift))


def _stem_by_hand(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    images = _norm_relu(F.conv2d(images, next(weights), stride=2, padding=3), weights)
    return F.max_pool2d(images, 3, stride=2, padding=1)


def _dense_by_hand(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    new = F.conv2d(_norm_relu(images, weights), next(weights), padding=1)
    return torch.cat([images, new], dim=1)


def _rrdb_by_hand(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    images = _dense_by_hand(_stem_by_hand(images, weights), weights)
    images = F.conv2d(_norm_relu(images, weights), next(weights))
    return F.linear(F.avg_pool2d(images, 2).mean(dim=(2, 3)), next(weights), next(weights))


def _rrdb_rnn_by_hand(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    images, shared = _stem_by_hand(images, weights), next(weights)
    images = F.conv2d(F.conv2d(images, shared, padding=1), shared, padding=1)
    images = F.conv2d(_dense_by_hand(images, weights), next(weights))
    return F.linear(images.mean(dim=(2, 3)), next(weights), next(weights))


def _cnn3_by_hand(images: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    for _ in range(3):
        images = F.relu(F.conv2d(images, next(weights), next(weights), padding=1))
        images = F.max_pool2d(images, 2)
    features = F.relu(F.linear(images.mean(dim=(2, 3)), next(weights), next(weights)))
    return F.linear(features, next(weights), next(weights))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [("rrdb", _rrdb_by_hand), ("rrdb_rnn", _rrdb_rnn_by_hand), ("cnn3", _cnn3_by_hand)],
)
def test_layers_equal_the_reports(
    name: str, by_hand: Callable[[torch.Tensor, Iterator[torch.Tensor]], torch.Tensor]
) -> None:
    """The report's list of layers, implemented a second time, returns the same logits.

    92 px become 23 after the stem, an odd size, which reveals a missing pooling layer.
    """
    model = _model(name, PINNED[name][0]).train()
    images = _images(4, 3, 92)
    with torch.no_grad():
        model(images)  # running means and variances other than 0 and 1
        state = model.eval().state_dict()
        weights = iter(value for key, value in state.items() if "num_batches" not in key)
        assert torch.allclose(by_hand(images, weights), model(images), atol=1e-5)
        assert next(weights, None) is None
