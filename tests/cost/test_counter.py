"""Costs: counted by hand for small networks, pinned for the models."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.cost import counter as cost
from minet.cost.counter import count_costs, counts_disagree
from minet.models.dwg_densenet121 import GeneratedConv
from minet.models.dynamic_resnet18 import DynamicConv
from minet.models.registry import MODELS, build
from tests.helpers.pinned import DEPTHS

IMAGE_SIZES = {"alexnet4": 64, "resnet34_flatten": 224}  # of models that do not accept 32


class Branches(nn.Module):
    """Two paths from image to features, one a convolution longer, then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Conv2d(3, 4, 1, bias=False)
        self.long = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1))
        self.out = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.out((self.short(images) + self.long(images)).mean(dim=(2, 3)))


class Repeated(nn.Module):
    """One convolution, applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(self.conv(images)))


class Uncounted(nn.Module):
    """A linear layer and two operations that fvcore does not count, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        sums = images.cumsum(dim=-1).cumsum(dim=-2)
        return self.out(torch.cdist(sums[:, 0], sums[:, 1]))


class Recurrent(nn.Module):
    """A GRU over the rows of the red channel; torch counts it, fvcore has no rule for it."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.gru(images[:, 0])[0]


def _chain() -> nn.Sequential:
    """Return a convolution and two linear layers, for (N, 3, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
        nn.ReLU(),
        nn.Linear(10, 5, bias=False),
    )


BY_HAND = [
    # name, model, parameters, multiply-adds at 8 px, depth
    ("conv", nn.Conv2d(3, 4, 3, padding=1), 3 * 4 * 9 + 4, 8 * 8 * 4 * 27, 1),
    ("conv with stride", nn.Conv2d(3, 4, 3, stride=2, padding=1), 112, 4 * 4 * 4 * 27, 1),
    ("conv in groups", nn.Conv2d(3, 6, 3, groups=3, padding=1), 6 * 9 + 6, 8 * 8 * 6 * 9, 1),
    ("linear", nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), 1_930, 1_920, 1),
    (
        "linear without bias",
        nn.Sequential(nn.Flatten(), nn.Linear(192, 10, bias=False)),
        1_920,
        1_920,
        1,
    ),
    (
        "branches",
        Branches(),
        12 + (54 + 2) + (72 + 4) + (20 + 5),
        64 * 12 + 64 * 54 + 64 * 72 + 20,
        3,
    ),
    ("chain", _chain(), 112 + 2_570 + 50, 64 * 4 * 27 + 2_560 + 50, 3),
    ("repeated", Repeated(), 81, 3 * 64 * 81, 3),
    ("norm and pool", nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2)), 6, 0, 0),
]


@pytest.mark.parametrize(
    ("model", "parameters", "macs", "depth"),
    [case[1:] for case in BY_HAND],
    ids=[case[0] for case in BY_HAND],
)
def test_counts_equal_those_by_hand(
    model: nn.Module, parameters: int, macs: int, depth: int
) -> None:
    record = count_costs(model, channels=3, image_size=8)
    assert record["parameters"] == parameters
    assert record["parameter_mb"] == pytest.approx(parameters * 4 / 1e6)
    assert record["macs"] == macs
    assert record["flops"] == 2 * macs
    assert record["depth"] == depth
    assert record["input_px"] == 8
    assert not counts_disagree(record)


class Product(nn.Module):
    """A function of the channels of an image, for products that are not layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images[0])  # (3, 8, 8)


def _attention(channels: Tensor) -> Tensor:
    """8 queries of 8 features over 5 keys and values of 6 features."""
    keys, values = channels[1, None, :5], channels[2, None, :5, :6]
    return F.scaled_dot_product_attention(channels[None, 0], keys, values)


PRODUCTS = [
    # name, function of (3, 8, 8), multiply-adds
    ("matrix and matrix", lambda x: x[0] @ x[1], 8 * 8 * 8),
    ("matrix and vector", lambda x: x[0] @ x[1, 0], 8 * 8),
    ("vector and matrix", lambda x: x[0, 0] @ x[1], 8 * 8),
    ("vector and vector", lambda x: x[0, 0] @ x[1, 0], 8),
    ("batch and matrix", lambda x: x @ x[0, :, :5], 3 * 8 * 5 * 8),
    ("mv", lambda x: torch.mv(x[0, :5], x[1, 0]), 5 * 8),
    ("bmm", lambda x: torch.bmm(x, x[:, :, :2]), 3 * 8 * 2 * 8),
    ("baddbmm", lambda x: torch.baddbmm(x, x, x), 3 * 8 * 8 * 8),
    ("einsum", lambda x: torch.einsum("cij,cjk->cik", x, x), 3 * 8 * 8 * 8),
    ("attention", _attention, 8 * 5 * (8 + 6)),
]


@pytest.mark.parametrize(
    ("function", "macs"), [row[1:] for row in PRODUCTS], ids=[row[0] for row in PRODUCTS]
)
def test_products_of_features_are_counted_but_are_not_layers(
    function: Callable[[Tensor], Tensor], macs: int
) -> None:
    """They have multiply-adds but no weights."""
    record = count_costs(
        nn.Sequential(nn.Conv2d(3, 3, 1), Product(function)), channels=3, image_size=8
    )
    assert record["macs_product"] == macs
    assert record["macs"] == macs + 3 * 3 * 64
    assert record["uncounted"].keys() <= {"aten::select", "aten::slice"}
    assert record["depth"] == 1


def test_a_dynamic_convolution_is_counted_completely() -> None:
    """Attention 8 to 2 to 4, four kernels of 6 x 8 x 3 x 3 mixed, one convolution at 5 x 5."""
    conv = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
    layer = DynamicConv(conv, kernels=4, reduction=4, temperature=30.0, epochs=10)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), layer)
    record = count_costs(model, channels=3, image_size=10)
    assert record["macs_linear"] == 8 * 2 + 2 * 4
    assert record["macs_product"] == 4 * (6 * 8 * 9)
    assert record["macs_convolution"] == 100 * 3 * 8 + 5 * 5 * (6 * 8 * 9)
    assert record["flops"] == 2 * record["macs"]
    assert record["depth"] == 1 + 4


def test_mixing_the_kernels_of_dynamic_resnet18_adds_2_and_a_half_percent() -> None:
    """K times 11,157,504 weights mixed, on top of the static network's convolutions."""
    dynamic, static = (
        count_costs(build(name, num_classes=50), channels=3, image_size=224)
        for name in ("dynamic_resnet18", "resnet18")
    )
    assert dynamic["macs_product"] == 4 * 11_157_504
    assert dynamic["macs_convolution"] == static["macs_convolution"]
    assert dynamic["macs"] / static["macs"] == pytest.approx(1.025, abs=5e-4)


def test_a_generated_convolution_is_counted_completely() -> None:
    record = count_costs(GeneratedConv(3, 4, 5), channels=3, image_size=8)
    assert record["macs_linear"] == 3 * 5 + 5 * (4 * 3 * 49)
    assert record["macs_convolution"] == 4 * 4 * (4 * 3 * 49)
    assert record["depth"] == 3


def test_attention_and_graph_of_parallel_are_counted_as_products() -> None:
    """196 patches: queries and keys of 8, weights and values of 64; the adjacency twice."""
    record = count_costs(build("parallel", num_classes=50), channels=3, image_size=224)
    assert record["macs_product"] == 196 * 196 * (8 + 64) + 2 * 196 * 196 * 64


def test_counted_ops_include_norms_and_pools() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    normed = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    one, other = (count_costs(model, channels=3, image_size=8) for model in (plain, normed))
    assert one["counted_ops"] == one["macs"] == other["macs"]
    assert other["counted_ops"] > other["macs"]


IMAGE, FEATURES = 3 * 64 * 4, 4 * 64 * 4  # bytes of (1, 3, 8, 8) and (1, 4, 8, 8) in float32


@pytest.mark.parametrize(
    ("model", "saved_bytes"),
    [
        # a convolution saves its input, ReLU its output, a linear layer its input
        (nn.Conv2d(3, 4, 1), IMAGE),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), IMAGE + FEATURES),
        # ReLU's output is the linear layer's input: shared storage, counted once, also in place
        (_chain(), IMAGE + FEATURES + 10 * 4),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)),
            IMAGE + FEATURES,
        ),
        # each repeat saves its own input
        (Repeated(), 3 * IMAGE),
        # max pooling saves its input and the indices of the maxima, 8 bytes each
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)), IMAGE + FEATURES + 4 * 16 * 8),
        # weights are not activations, nor are the running means of a norm
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), IMAGE + FEATURES),
    ],
    ids=["conv", "two convs", "chain", "relu in place", "repeated", "max-pool", "norm"],
)
def test_activations_are_what_the_backward_pass_needs(model: nn.Module, saved_bytes: int) -> None:
    record = count_costs(model, channels=3, image_size=8)
    assert record["activation_mb"] == pytest.approx(saved_bytes / 1e6)


def test_activations_are_proportional_to_the_area_and_parameters_constant() -> None:
    small, large = (
        count_costs(build("cnn3", num_classes=50), channels=3, image_size=s) for s in (32, 64)
    )
    assert large["parameters"] == small["parameters"]
    assert large["activation_mb"] / small["activation_mb"] == pytest.approx(4, rel=0.02)


def test_the_image_has_the_requested_channels() -> None:
    record = count_costs(nn.Conv2d(1, 4, 3, padding=1), channels=1, image_size=8)
    assert record["macs"] == 64 * 4 * 9


@pytest.mark.parametrize("name", MODELS)
def test_models_have_their_pinned_depth_and_both_counters_agree(name: str) -> None:
    image_size = IMAGE_SIZES.get(name, 32)
    record = count_costs(build(name, num_classes=50), channels=3, image_size=image_size)
    assert name in DEPTHS, f'add to DEPTHS: "{name}": {record["depth"]},'
    assert record["depth"] == DEPTHS[name]
    assert record["flops"] == 2 * record["macs"]
    assert not counts_disagree(record)
    assert json.loads(json.dumps(record)) == record  # valid JSON, for cost.json


def test_the_depth_of_a_residual_network_is_that_of_its_longest_path() -> None:
    """Shortcut convolutions (3 of resnet18's 21 layers with weights) are parallel to it."""
    model = build("resnet18", num_classes=2)
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 21
    assert cost._depth(model.eval(), torch.zeros(1, 3, 32, 32)) == 18


def test_uncounted_operations_are_named_with_the_number_of_calls() -> None:
    record = count_costs(Uncounted(), channels=3, image_size=8)
    assert record["uncounted"] == {"aten::cdist": 1, "aten::cumsum": 2}
    assert list(record["uncounted"]) == sorted(record["uncounted"])
    assert record["macs"] == 8 * 8 * 5  # the linear layer is counted


def test_uncounted_is_empty_if_all_operations_are_counted() -> None:
    assert count_costs(nn.Conv2d(3, 4, 3), channels=3, image_size=8)["uncounted"] == {}


def test_a_layer_that_fvcore_does_not_count_makes_the_counts_disagree() -> None:
    record = count_costs(Recurrent(), channels=3, image_size=8)
    assert record["uncounted"] == {"aten::gru": 1}
    assert record["macs"] == 0
    assert record["flops"] == 2 * (2 * 8 * 8 * 24)  # 8 rows, 24 gates, of row and of state
    assert counts_disagree(record)


def test_operations_that_torch_misses_make_the_counts_disagree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smaller = nn.Linear(2, 2)
    original = cost._torch_flops
    monkeypatch.setattr(
        cost, "_torch_flops", lambda _, image: original(smaller, image[0, 0, :, :2])
    )
    assert counts_disagree(count_costs(_chain(), channels=3, image_size=8))


@pytest.mark.parametrize("missed", ["conv", "addmm"])
def test_operations_that_fvcore_misses_make_the_counts_disagree(
    monkeypatch: pytest.MonkeyPatch, missed: str
) -> None:
    """`addmm` includes `linear`, as fvcore may use either name for linear layers."""
    kind = {"conv": "convolution", "addmm": "linear"}[missed]
    monkeypatch.setitem(cost._MULTIPLY_ADDS, kind, ())
    assert counts_disagree(count_costs(_chain(), channels=3, image_size=8))


@pytest.mark.parametrize(
    ("flops", "disagree"), [(2_000, False), (2_001, False), (2_003, True), (1_997, True)]
)
def test_counts_may_differ_by_a_thousandth(flops: int, disagree: bool) -> None:
    assert counts_disagree({"macs": 1_000, "flops": flops}) is disagree


def test_counting_leaves_weights_and_running_means_unchanged() -> None:
    model = build("rrdb", num_classes=50).train()
    original = {key: value.clone() for key, value in model.state_dict().items()}
    count_costs(model, channels=3, image_size=64)
    counted = model.state_dict()
    assert all(torch.equal(original[key], counted[key]) for key in original)
    assert all(parameter.grad is None for parameter in model.parameters())
