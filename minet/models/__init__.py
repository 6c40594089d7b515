"""The table of models: a name, the same in params.yaml, and the builder it stands for.

Builders are named, not imported, so that a run loads one architecture and depends on one file.
"""

import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model

from minet.errors import InputError
from minet.settings import choices, setting_problems

if TYPE_CHECKING:
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
    from minet.building import build_by_name

    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; {choices(name, MODELS)}")
    problems = argument_problems(name, arguments)
    if problems:
        raise InputError(*problems)
    return build_by_name(MODELS[name], num_classes=num_classes, arguments=arguments)


def argument_problems(name: str, arguments: dict[str, Any]) -> list[str]:
    """Check arguments against the builder's signature: names and types, as `models.<name>.<key>`.

    A right signature is then called on torch's meta device, without memory, which finds values that
    the builder refuses.
    """
    builder = pkgutil.resolve_name(MODELS[name])
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
    return _meta_problems(name, arguments, None)


def input_problems(
    name: str, arguments: dict[str, Any], *, shape: tuple[int, int, int, int]
) -> list[str]:
    """Run a model without memory on images (N, C, H, W) as training gives them."""
    return _meta_problems(name, arguments, shape)


def _meta_problems(
    name: str, arguments: dict[str, Any], shape: tuple[int, int, int, int] | None
) -> list[str]:
    """Build on torch's meta device and, given a shape, run; say what torch or the builder says."""
    import torch

    what = f"models.{name}"
    try:
        with torch.device("meta"):
            model = pkgutil.resolve_name(MODELS[name])(num_classes=2, **arguments)
            if shape is not None:
                what += f": does not take batches of {' x '.join(map(str, shape))}"
                model(torch.empty(shape))
    except (ValueError, TypeError, RuntimeError) as error:
        return [f"{what}: {str(error).partition(chr(10))[0]}"]
    return []
