"""Build a model from its builder's name, as run settings and a model's metadata have it."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from minet.core.errors import InputError

_BUILDERS = "minet.models."


def build_by_name(builder: str, *, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Call "module:function" of `minet.models`; InputError for any other code.

    The model raises InputError for images with another number of channels than its builder's
    `channels` (3 without such an argument), unless one of its layers declares `any_channels`.
    """
    if not builder.startswith(_BUILDERS):
        raise InputError(f"builder {builder!r} is not in minet.models ({_BUILDERS}*)")
    function: Callable[..., nn.Module] = pkgutil.resolve_name(builder)
    model = function(num_classes=num_classes, **arguments)
    if not any(getattr(layer, "any_channels", False) for layer in model.modules()):
        bound = inspect.signature(function).bind(num_classes=num_classes, **arguments)
        bound.apply_defaults()
        channels = bound.arguments.get("channels", 3)
        model.register_forward_pre_hook(partial(_check_channels, function.__name__, channels))
    return model


def _check_channels(name: str, expected: int, _: nn.Module, inputs: tuple[Tensor]) -> None:
    channels = inputs[0].shape[1]
    if channels != expected:
        raise InputError(f"{name} takes images of {expected} channels, not {channels}")
