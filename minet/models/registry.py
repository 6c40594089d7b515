"""The table of models: names as in params.yaml, each with the path of its builder.

Builders are named, not imported, so that a run imports one architecture and depends on one file.
"""

import importlib
import inspect
import json
import pkgutil
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model

from minet.core.errors import InputError
from minet.core.settings import choices, setting_problems

if TYPE_CHECKING:
    from torch import nn

MODELS = {
    "alexnet4": "minet.models.alexnet4:alexnet4",
    "bottleneck3": "minet.models.bottleneck3:bottleneck3",
    "cnn3": "minet.models.cnn3:cnn3",
    "cool": "minet.models.cool:cool",
    "densenet121": "minet.models.densenet121:densenet121",
    "dwg_any": "minet.models.dwg_any:dwg_any",
    "dwg_densenet121": "minet.models.dwg_densenet121:dwg_densenet121",
    "dynamic_resnet18": "minet.models.dynamic_resnet18:dynamic_resnet18",
    "mobilenetv3_3": "minet.models.mobilenetv3_3:mobilenetv3_3",
    "parallel": "minet.models.parallel:parallel",
    "pool_attention": "minet.models.pool_attention:pool_attention",
    "resnet18": "minet.models.resnet18:resnet18",
    "resnet34": "minet.models.resnet34:resnet34",
    "resnet50": "minet.models.resnet50:resnet50",
    "resnet101": "minet.models.resnet101:resnet101",
    "resnet152": "minet.models.resnet152:resnet152",
    "resnet18_slides": "minet.models.resnet18_slides:resnet18_slides",
    "resnet34_flatten": "minet.models.resnet34_flatten:resnet34_flatten",
    "rrdb": "minet.models.rrdb:rrdb",
    "rrdb_rnn": "minet.models.rrdb_rnn:rrdb_rnn",
}


def build(name: str, *, num_classes: int, **arguments: object) -> "nn.Module":
    """Build a model by its name; InputError for an unknown name or an invalid argument."""
    from minet.nn.build import build_by_name

    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; {choices(name, MODELS)}")
    problems = argument_problems(name, arguments)
    if problems:
        raise InputError(*problems)
    return build_by_name(MODELS[name], num_classes=num_classes, arguments=arguments)


def argument_problems(name: str, arguments: dict[str, Any]) -> list[str]:
    """Check arguments against the builder's signature: names and types, as `models.<name>.<key>`.

    If they match it, the builder is called on torch's meta device, without memory, to find values
    that it rejects; its defaults need no check.
    """
    builder = pkgutil.resolve_name(MODELS[name])
    fields: dict[str, Any] = {
        key: (parameter.annotation, parameter.default)
        for key, parameter in inspect.signature(builder, eval_str=True).parameters.items()
        if key != "num_classes"
    }
    schema = create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        schema.model_validate(arguments)
    except ValidationError as error:
        return setting_problems(error, schema, prefix=("models", name))
    return input_problems(name, arguments, shape=None) if arguments else []


def pretrained_url(name: str) -> str | None:
    """Return the address of torchvision's ImageNet weights of a model; None if it has none."""
    weights = getattr(_module(name), "IMAGENET", None)
    return None if weights is None else str(weights.url)


def reinitialized_layers(name: str) -> tuple[str, ...]:
    """Return the prefixes of the layers that those weights do not contain."""
    return tuple(getattr(_module(name), "NOT_PRETRAINED", ()))


def _module(name: str) -> ModuleType:
    return importlib.import_module(MODELS[name].partition(":")[0])


def input_problems(
    name: str, arguments: dict[str, Any], *, shape: tuple[int, int, int, int] | None
) -> list[str]:
    """Build a model on torch's meta device, without memory; run it on a shape (N, C, H, W), if any.

    Returns the error of either. Rows of the zoo repeat models and shapes; each is tried once.
    """
    return list(_meta_errors(name, json.dumps(arguments, sort_keys=True, default=str), shape))


@cache
def _meta_errors(
    name: str, arguments_json: str, shape: tuple[int, int, int, int] | None
) -> tuple[str, ...]:
    import torch

    from minet.nn.build import build_by_name

    prefix, arguments = f"models.{name}", json.loads(arguments_json)
    try:
        with torch.device("meta"):
            model = build_by_name(MODELS[name], num_classes=2, arguments=arguments)
            if shape is not None:
                prefix += f": does not take batches of {' x '.join(map(str, shape))}"
                model(torch.empty(shape))
    except (ValueError, TypeError, RuntimeError) as error:
        return (f"{prefix}: {str(error).partition(chr(10))[0]}",)
    return ()
