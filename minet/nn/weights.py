"""Initial weights: reading torchvision's or a user's file, and loading them into a model."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minet.core.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".pth")
_MAX_PROBLEMS = 8  # mismatches that an error names before it counts the rest


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors or a torch file, whose code is never run.

    A torch file may hold it under `state_dict` or `model`, with DataParallel's prefix `module.`.
    Names of torchvision's old DenseNet files become the current ones. InputError if the file is
    missing, not readable or contains anything but named tensors.
    """
    content = _load_file(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: contains no named weights but a {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} is not a tensor name")
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {_current_name(name.removeprefix(prefix)): tensor for name, tensor in content.items()}


def _load_file(path: Path) -> Any:
    """Load the content of a file, of any type."""
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
    """Return the names of the tensors whose shape depends on the number of classes.

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
    """Return a message for each weight that is missing, unexpected or of another shape.

    Two mismatches are allowed: a head for another number of classes, which keeps its initial
    values, and names that start with one of `reinitialized`, which the file is known to lack.
    """
    expected, optional = model.state_dict(), tuple(reinitialized)
    problems = []
    for name, tensor in expected.items():
        counter = name.endswith("num_batches_tracked")  # files from before torch 0.4.1 lack it
        loaded = weights.get(name)
        if loaded is None and not (counter or name in head or name.startswith(optional)):
            problems.append(f"{name} is not in the file")
        if loaded is not None and loaded.shape != tensor.shape and name not in head:
            shapes = f"{tuple(loaded.shape)} in the file, {tuple(tensor.shape)} in the model"
            problems.append(f"{name} is {shapes}")
    unexpected = [
        name for name in weights if name not in expected and not name.startswith(optional)
    ]
    problems += [f"{name} is not in the model" for name in unexpected]
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more do not fit"]
    return problems


def load_matching(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Load the weights whose name and shape match; return the names that keep their values."""
    expected = model.state_dict()
    matching = {
        name: weights[name]
        for name, tensor in expected.items()
        if name in weights and weights[name].shape == tensor.shape
    }
    model.load_state_dict(matching, strict=False)
    return [name for name in expected if name not in matching]


def _current_name(name: str) -> str:
    """Rename `denselayer1.norm.1.weight` of torchvision's old DenseNet files to `norm1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)
