"""What a model costs: parameters, multiply-adds, memory, depth - and what was not counted."""

import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# the operations that multiply and add, by fvcore's names; products are those of two features, or
# of attention with the kernels that it mixes
_MULTIPLY_ADDS = {
    "convolution": ("conv",),
    "linear": ("linear", "addmm"),
    "product": ("matmul", "bmm", "baddbmm", "einsum", "mv", "scaled_dot_product_attention"),
}
_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Linear")  # nodes of torch's autograd
_VIEWS = ("T", "View", "UnsafeView", "Transpose", "Permute", "ReshapeAlias", "Expand", "Unsqueeze")


def count_costs(model: nn.Module, *, channels: int, image_size: int) -> dict[str, Any]:
    """Count one forward pass of one image in evaluation: the record of metrics/cost.json.

    `macs` are fvcore's multiply-adds, the sum of those of convolutions, linear layers and matrix
    products (`macs_*`); `flops` are torch's own count of the same (two a multiply-add);
    `counted_ops` adds what fvcore counts of norms and pools. Megabytes are 10^6 bytes; activations
    are what autograd keeps of one float32 image for the backward pass. `depth` is the longest chain
    of layers with weights that wait for one another. `uncounted` names the operations that fvcore
    has no rule for, with how often they ran.
    """
    model = model.eval()
    image = torch.zeros(1, channels, image_size, image_size)
    by_operator, uncounted = _fvcore_counts(model, image)
    macs = {
        f"macs_{kind}": sum(by_operator.get(name, 0) for name in names)
        for kind, names in _MULTIPLY_ADDS.items()
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "parameters": parameters,
        "parameter_mb": parameters * 4 / 1e6,
        "macs": sum(macs.values()),
        **macs,
        "flops": _torch_flops(model, image),
        "counted_ops": sum(by_operator.values()),
        "activation_mb": _activation_bytes(model, image) / 1e6,
        "depth": _depth(model, image),
        "input_px": image_size,
        "uncounted": uncounted,
    }


def counts_disagree(record: dict[str, Any]) -> bool:
    """Whether fvcore and torch differ by over 0.1 % on multiply-adds: one of them is blind."""
    return bool(abs(record["flops"] - 2 * record["macs"]) > 0.002 * record["macs"])


def _fvcore_counts(model: nn.Module, image: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)  # told in `uncounted`
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # fvcore stands on torch.jit, which is deprecated
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, image).set_op_handle(**_HANDLES)
        by_operator = {name: int(count) for name, count in analysis.by_operator().items()}
        uncounted = {name: int(count) for name, count in analysis.unsupported_ops().items()}
    return by_operator, dict(sorted(uncounted.items()))


def _torch_flops(model: nn.Module, image: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


def _activation_bytes(model: nn.Module, image: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, shared storage once, weights not."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, Tensor] = {}  # holds the tensors: a freed storage's address would come again

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(image)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _product_macs(inputs: list[Any], outputs: list[Any], *, first: int) -> int:
    """Multiply-adds of a product: each number of the output sums over the factors' inner axis.

    fvcore's own rule for `matmul` knows no vectors, and it has none for the others.
    """
    inner: int = inputs[first].type().sizes()[-1]
    count: int = math.prod(outputs[0].type().sizes())
    return count * inner


def _attention_macs(inputs: list[Any], _: list[Any]) -> int:
    """Multiply-adds of scaled dot-product attention: queries with keys, weights with values."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    pairs: int = math.prod(query[:-1]) * key[-2]
    return pairs * int(query[-1] + value[-1])


_HANDLES = {
    "aten::matmul": partial(_product_macs, first=0),
    "aten::mv": partial(_product_macs, first=0),
    "aten::baddbmm": partial(_product_macs, first=1),
    "aten::scaled_dot_product_attention": _attention_macs,
}


def _depth(model: nn.Module, image: Tensor) -> int:
    """Longest chain of layers with weights in the graph that autograd keeps of a forward pass."""
    node = model(image).grad_fn
    depths: dict[Any, int] = {}
    stack = [node]
    while stack:
        node = stack[-1]
        waiting = [before for before in _before(node) if before not in depths]
        if waiting:
            stack += waiting
        else:
            own = _is_layer(node)
            depths[node] = own + max((depths[before] for before in _before(node)), default=0)
            stack.pop()
    return depths[node]


def _is_layer(node: Any) -> bool:
    """Whether a node is a convolution, or a product of which one factor is a weight."""
    name = node.name()
    if name.startswith("Convolution"):
        return True
    return name.startswith(_PRODUCTS) and any(map(_is_weight, _before(node)))


def _is_weight(node: Any) -> bool:
    """Whether a node gives a parameter, or a view of one."""
    while node.name().startswith(_VIEWS):
        node = next(_before(node))
    return bool(node.name().endswith("AccumulateGrad"))


def _before(node: Any) -> Iterator[Any]:
    return (before for before, _ in node.next_functions if before is not None)
