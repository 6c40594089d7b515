"""Checkpoints: weights as safetensors, with a JSON file of metadata beside them."""

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
    """Write a state dict (safetensors) and the metadata needed to rebuild and use the model."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_write(weights) as partial:
        save_file(tensors, partial)
    write_json(metadata, record)


def load_model(weights: Path, metadata: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model that the metadata describes, with its weights, and the metadata.

    InputError if the weights do not match the metadata.
    """
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
