"""Costs of a model: parameters, multiply-adds, memory, depth - and the uncounted operations."""

import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# operations that count as multiply-adds, by fvcore's names; products are of two feature tensors,
# or of attention with the kernels that it mixes
_MULTIPLY_ADDS = {
    "convolution": ("conv",),
    "linear": ("linear", "addmm"),
    "product": ("matmul", "bmm", "baddbmm", "einsum", "mv", "scaled_dot_product_attention"),
}
_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Linear")  # nodes of torch's autograd
_VIEWS = ("T", "View", "UnsafeView", "Transpose", "Permute", "ReshapeAlias", "Expand", "Unsqueeze")


def count_costs(model: nn.Module, *, channels: int, image_size: int) -> dict[str, Any]:
    """Return the record of cost.json: one forward pass of one image in evaluation mode.

    `macs` are fvcore's multiply-adds, the sum over convolutions, linear layers and matrix products
    (`macs_*`); `flops` is torch's own count of the same, two per multiply-add; `counted_ops` adds
    what fvcore counts for norms and pools. Megabytes are 10^6 bytes; activations are the tensors
    that autograd saves of one float32 image for the backward pass. `depth` is the longest chain of
    dependent layers with weights. `uncounted` maps each operation for which fvcore has no rule to
    the number of times it ran.
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
    """Whether fvcore and torch differ by over 0.1 % on multiply-adds, so that one is wrong."""
    return bool(abs(record["flops"] - 2 * record["macs"]) > 0.002 * record["macs"])


def _fvcore_counts(model: nn.Module, image: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)  # see `uncounted`
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, which is deprecated
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
    """Return the bytes that autograd saves in a forward pass; shared storage counts once.

    Weights and buffers do not count.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    saved: dict[int, Tensor] = {}  # holds the tensors: the address of a freed one may be reused

    def save(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            saved[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(image)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def _product_macs(inputs: list[Any], outputs: list[Any], *, first: int) -> int:
    """Return the multiply-adds of a product: output size times the length of the inner axis.

    `first` is the position of the first factor among the inputs. fvcore's own rule for `matmul`
    does not support vectors, and it has none for the others.
    """
    inner: int = inputs[first].type().sizes()[-1]
    count: int = math.prod(outputs[0].type().sizes())
    return count * inner


def _attention_macs(inputs: list[Any], _: list[Any]) -> int:
    """Return the multiply-adds of scaled dot-product attention: QK^T, then weights times V."""
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
    """Return the longest chain of layers with weights in autograd's graph of a forward pass."""
    node = model(image).grad_fn
    depths: dict[Any, int] = {}
    stack = [node]
    while stack:
        node = stack[-1]
        pending = [parent for parent in _parents(node) if parent not in depths]
        if pending:
            stack += pending
        else:
            deepest = max((depths[parent] for parent in _parents(node)), default=0)
            depths[node] = _is_layer(node) + deepest
            stack.pop()
    return depths[node]


def _is_layer(node: Any) -> bool:
    """Whether a node is a convolution, or a product with a weight as a factor."""
    name = node.name()
    if name.startswith("Convolution"):
        return True
    return name.startswith(_PRODUCTS) and any(map(_is_weight, _parents(node)))


def _is_weight(node: Any) -> bool:
    """Whether a node is a parameter, or a view of one."""
    while node.name().startswith(_VIEWS):
        node = next(_parents(node))
    return bool(node.name().endswith("AccumulateGrad"))


def _parents(node: Any) -> Iterator[Any]:
    return (parent for parent, _ in node.next_functions if parent is not None)
