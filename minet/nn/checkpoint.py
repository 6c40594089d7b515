"""Weights that say what they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minet.core.errors import InputError
from minet.core.files import atomic_write, read_json, write_json
from minet.nn.build import build_by_name


def save_model(weights: Path, metadata: Path, state: Mapping[str, Tensor], record: Any) -> None:
    """Write weights (safetensors) and beside them the metadata: all that is needed to use them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_write(weights) as partial:
        save_file(tensors, partial)
    write_json(metadata, record)


def load_model(weights: Path, metadata: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model that a metadata describes and load its weights; InputError if they differ."""
    record = read_json(metadata)
    model = build_by_name(
        record["builder"], num_classes=len(record["classes"]), arguments=record["arguments"]
    )
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{weights}: not the weights that {metadata} describes: {error}"
        ) from error
    return model, record
