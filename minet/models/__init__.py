"""The table of models: a name, the same in params.yaml, and the builder it stands for.

Builders are named, not imported, so that a run loads one architecture and depends on one file.
"""

import inspect
import pkgutil
from typing import TYPE_CHECKING, Any, cast

from pydantic import ConfigDict, ValidationError, create_model

from minet.errors import InputError
from minet.settings import choices, setting_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

MODELS = {
    "cnn3": "minet.models.cnn3:cnn3",
    "resnet18": "minet.models.resnet18:resnet18",
    "resnet34": "minet.models.resnet34:resnet34",
    "rrdb": "minet.models.rrdb:rrdb",
    "rrdb_rnn": "minet.models.rrdb_rnn:rrdb_rnn",
}


def build(name: str, *, num_classes: int, **arguments: object) -> "nn.Module":
    """Build a model of the table; InputError for a name or an argument that does not exist."""
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; {choices(name, MODELS)}")
    problems = argument_problems(name, arguments)
    if problems:
        raise InputError(*problems)
    return _builder(name)(num_classes=num_classes, **arguments)


def argument_problems(name: str, arguments: dict[str, Any]) -> list[str]:
    """Check arguments against the builder's signature: names and types, as `models.<name>.<key>`.

    A right signature is then called on torch's meta device, without memory, which finds values that
    the builder refuses.
    """
    builder = _builder(name)
    fields: dict[str, Any] = {
        key: (parameter.annotation, parameter.default)
        for key, parameter in inspect.signature(builder, eval_str=True).parameters.items()
        if key != "num_classes"
    }
    kind = create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        kind.model_validate(arguments)
    except ValidationError as error:
        return setting_problems(error, kind, prefix=("models", name))
    import torch

    try:
        with torch.device("meta"):
            builder(num_classes=2, **arguments)
    except ValueError as error:
        return [f"models.{name}: {error}"]
    return []


def input_problems(
    name: str, arguments: dict[str, Any], *, channels: int, side_px: int
) -> list[str]:
    """Run a model on torch's meta device, without memory, on two images as training gives them."""
    import torch

    with torch.device("meta"):
        model = _builder(name)(num_classes=2, **arguments)
        try:
            model(torch.empty(2, channels, side_px, side_px))
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            shape = f"{channels} planes of {side_px} px"
            return [f"models.{name}: does not take images of {shape}: {reason}"]
    return []


def _builder(name: str) -> "Callable[..., nn.Module]":
    return cast("Callable[..., nn.Module]", pkgutil.resolve_name(MODELS[name]))
