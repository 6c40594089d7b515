"""Calling a builder by name; a run's settings and a model's card name one."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from minet.errors import InputError

_BUILDERS = "minet.models."


def build_by_name(builder: str, *, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Call "module:function" of this project's models; InputError for any other code."""
    if not builder.startswith(_BUILDERS):
        raise InputError(f"builder {builder!r} is none of this project's ({_BUILDERS}*)")
    model: nn.Module = pkgutil.resolve_name(builder)(num_classes=num_classes, **arguments)
    return model
