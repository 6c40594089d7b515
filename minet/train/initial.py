"""The model that a run starts from."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from minet.core.errors import InputError
from minet.core.rng import RngStream, torch_seed
from minet.nn.build import build_by_name
from minet.nn.config import IMAGENET
from minet.nn.weights import head_names, load_matching, weight_problems
from minet.train.config import RunSettings


@dataclass(frozen=True)
class InitialModel:
    """A model with its initial weights."""

    module: nn.Module
    reinitialized: list[str] | None  # layers that are random all the same; None: all are random

    def describe(self, settings: RunSettings) -> list[str]:
        """Return lines for the user on pretrained weights; none if all layers are random."""
        if self.reinitialized is None:
            return []
        random = ", ".join(self.reinitialized) or "none"
        lines = [f"weights: {settings.weights}; random: {random}"]
        normalize = settings.train.normalize
        if settings.weights == IMAGENET != normalize:
            lines.append(f"note: they were trained with train.normalize imagenet, not {normalize}")
        return lines


def initial_model(settings: RunSettings, num_classes: int, file: Path) -> InitialModel:
    """Build a run's model with random weights, and load those of a file, which may have none.

    InputError if the weights do not fit the model, other than its head and `reinitialized` layers.
    """
    build = partial(build_by_name, settings.builder, arguments=settings.arguments)
    torch.manual_seed(torch_seed(settings.seed, RngStream.INITIAL_WEIGHTS))
    module = build(num_classes=num_classes)
    weights = load_file(file)
    if not weights:
        return InitialModel(module, None)
    with torch.device("meta"):
        head = head_names(module, build(num_classes=num_classes + 1))
    problems = weight_problems(module, weights, head=head, reinitialized=settings.reinitialized)
    if problems:
        what = f"models.{settings.model}.weights is {settings.weights!r}"
        raise InputError(*(f"{what}; {problem}" for problem in problems))
    return InitialModel(module, load_matching(module, weights))
