"""Calling a builder by name; a run's settings and a model's metadata name one."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from minet.core.errors import InputError

_BUILDERS = "minet.models."


def build_by_name(builder: str, *, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Call "module:function" of this project's models; InputError for any other code.

    The model refuses images of another number of channels by its name, unless one of its layers
    says with `any_channels` that it takes them all.
    """
    if not builder.startswith(_BUILDERS):
        raise InputError(f"builder {builder!r} is none of this project's ({_BUILDERS}*)")
    function: Callable[..., nn.Module] = pkgutil.resolve_name(builder)
    model = function(num_classes=num_classes, **arguments)
    if not any(getattr(layer, "any_channels", False) for layer in model.modules()):
        given = inspect.signature(function).bind(num_classes=num_classes, **arguments)
        given.apply_defaults()
        channels = given.arguments.get("channels", 3)
        model.register_forward_pre_hook(partial(_check_channels, function.__name__, channels))
    return model


def _check_channels(name: str, channels: int, _: nn.Module, inputs: tuple[Tensor]) -> None:
    found = inputs[0].shape[1]
    if found != channels:
        raise InputError(f"{name} takes images of {channels} channels, not {found}")
