"""Settings as validated, frozen types: what all sections share, and how problems are told."""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minet.core.errors import InputError
from minet.core.files import read_json

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=0, le=1024)]  # 0: as many as there are cores
Pixels = Annotated[int, Field(ge=8, le=4096)]


class Settings(BaseModel):
    """A section: no unknown keys, no conversions (a quoted number is not a number), frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


SettingsType = TypeVar("SettingsType", bound=BaseModel)


def parse(kind: type[SettingsType], raw: Any) -> SettingsType:
    """Validate plain data as `kind`; pydantic's ValidationError says what is wrong.

    By way of JSON: lists become tuples, and what JSON does not have (dates) is reported as text.
    """
    return kind.model_validate_json(json.dumps(raw, default=str))


def read_settings(path: Path, kind: type[SettingsType]) -> SettingsType:
    """Read a consumer's settings, as the resolve stage wrote them."""
    try:
        return parse(kind, read_json(path))
    except ValidationError as error:
        raise InputError(*(f"{path}: {text}" for text in setting_problems(error, kind))) from error


def setting_problems(
    error: ValidationError, kind: type[BaseModel], *, prefix: tuple[str, ...] = ()
) -> list[str]:
    """Say each problem as "key is value; what is allowed", keys dotted as `-S` takes them."""
    return [_describe(detail, kind, prefix) for detail in error.errors()]


def _describe(detail: Mapping[str, Any], kind: type[BaseModel], prefix: tuple[str, ...]) -> str:
    place = [str(part) for part in detail["loc"]]
    key = ".".join((*prefix, *place))
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(kind, place[:-1])
        return f"{key} is not a setting; {choices(place[-1], allowed)}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{key} is {detail['input']!r}; {text[0].lower()}{text[1:]}"


def choices(wrong: str, allowed: Collection[str]) -> str:
    """Say what is allowed, the nearest first: "did you mean rrdb? allowed: cnn3, rrdb"."""
    near = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(sorted(allowed)) or 'none'}"


def _fields_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    """Names of the settings in the section at `place`; sections may stand under names of a user."""
    found: Any = kind
    for part in place:
        if get_origin(found) is dict:
            found = get_args(found)[1]
        elif isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(part)
            found = None if field is None else field.annotation
    whole = isinstance(found, type) and issubclass(found, BaseModel)
    return list(found.model_fields) if whole else []


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put changes over a mapping, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the settings of a mapping of sections with their keys as `-S` takes them."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
