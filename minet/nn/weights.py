"""Weights to start from: torchvision's or a file of one's own, and how they fit a model."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minet.core.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".pth")
_SHOWN = 8  # mismatches that an error names before it counts the rest


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or a torch file, of which no code is run.

    A torch file may hold it under `state_dict` or `model` and with DataParallel's `module.` before
    each name. Names of torchvision's old DenseNet files become today's.
    """
    found = _unpacked(path)
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds no weights by name but a {type(found).__name__}")
    for name, tensor in found.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} is no name of a tensor")
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {name!r} is a {type(tensor).__name__}, no tensor")
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {_today(name.removeprefix(prefix)): tensor for name, tensor in found.items()}


def _unpacked(path: Path) -> Any:
    """Load what a file holds, whatever that is."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # torch.load raises whatever its unpickler meets
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not readable as weights: {reason}") from error


def head_names(model: nn.Module, wider: nn.Module) -> set[str]:
    """Names of the tensors whose shape depends on the number of classes.

    `wider` is the same model for more classes; torch's meta device is enough.
    """
    shapes = {name: tensor.shape for name, tensor in wider.state_dict().items()}
    return {name for name, tensor in model.state_dict().items() if tensor.shape != shapes[name]}


def weight_problems(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    head: Collection[str],
    reinitialized: Collection[str],
) -> list[str]:
    """Say what of the weights does not fit: what is missing, in excess or of another shape.

    A head of other classes fits (it stays as it is), and so do names that begin as one of `reinitialized`,
    which the weights are known to lack.
    """
    wanted, free = model.state_dict(), tuple(reinitialized)
    problems = []
    for name, tensor in wanted.items():
        counter = name.endswith("num_batches_tracked")  # files from before torch 0.4.1 lack it
        there = weights.get(name)
        if there is None and not (counter or name in head or name.startswith(free)):
            problems.append(f"{name} is not in the file")
        if there is not None and there.shape != tensor.shape and name not in head:
            shapes = f"{tuple(there.shape)} in the file, {tuple(tensor.shape)} in the model"
            problems.append(f"{name} is {shapes}")
    extra = [name for name in weights if name not in wanted and not name.startswith(free)]
    problems += [f"{name} is not in the model" for name in extra]
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"and {len(problems) - _SHOWN} more do not fit"]
    return problems


def load_matching(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Load what fits of weights into a model; return the names that keep their values."""
    wanted = model.state_dict()
    fitting = {
        name: weights[name]
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)
    return [name for name in wanted if name not in fitting]


def _today(name: str) -> str:
    """Give `denselayer1.norm.1.weight` of torchvision's DenseNet files today's name, `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)
