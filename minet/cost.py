"""What a model costs: parameters, multiply-adds, memory, depth - and what was not counted."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# fvcore's names of the operations that multiply and add over weights or pairs of features
_MULTIPLY_ADDS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")
_WEIGHTED = ("Convolution", "Addmm", "Mm", "Bmm", "Linear")  # their nodes in torch's autograd


def count_costs(model: nn.Module, *, channels: int, side_px: int) -> dict[str, Any]:
    """Count one forward pass of one image in evaluation: the record of metrics/cost.json.

    `macs` are fvcore's multiply-adds of convolutions, linear layers and matrix products; `flops`
    are torch's own count of the same (two a multiply-add); `counted_ops` adds what fvcore counts of
    norms and pools. Megabytes are 10^6 bytes; activations are what autograd keeps of one float32
    image for the backward pass. `depth` is the longest chain of weighted layers that wait for one
    another. `uncounted` names the operations that fvcore has no rule for, with how often they ran.
    """
    model = model.eval()
    image = torch.zeros(1, channels, side_px, side_px)
    by_operator, uncounted = _fvcore_counts(model, image)
    macs = sum(count for name, count in by_operator.items() if name in _MULTIPLY_ADDS)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "parameters": parameters,
        "parameter_mb": parameters * 4 / 1e6,
        "macs": macs,
        "flops": _torch_flops(model, image),
        "counted_ops": sum(by_operator.values()),
        "activation_mb": _activation_bytes(model, image) / 1e6,
        "depth": _depth(model, image),
        "input_px": side_px,
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

        analysis = FlopCountAnalysis(model, image)
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


def _depth(model: nn.Module, image: Tensor) -> int:
    """Longest chain of weighted nodes in the graph that autograd keeps of a forward pass."""
    node = model(image).grad_fn
    depths: dict[Any, int] = {}
    stack = [node]
    while stack:
        node = stack[-1]
        waiting = [before for before in _before(node) if before not in depths]
        if waiting:
            stack += waiting
        else:
            own = node.name().startswith(_WEIGHTED)
            depths[node] = own + max((depths[before] for before in _before(node)), default=0)
            stack.pop()
    return depths[node]


def _before(node: Any) -> Iterator[Any]:
    return (before for before, _ in node.next_functions if before is not None)
