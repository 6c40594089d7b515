"""Settings as validated, frozen types: types that all sections share, and problems as text."""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from minet.core.errors import InputError
from minet.core.files import read_json

# `resolve` writes settings below this key: DVC shows parameters of all files side by side, and only
# those whose keys differ from the ones of params.yaml without the names of files
RESOLVED = "resolved"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=0, le=1024)]
SidePx = Annotated[int, Field(ge=8, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """A section: no unknown keys, no conversions (a quoted number is not a number), frozen.

    RENAMED maps the old names of settings to their new ones, for the error about an old name.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


SettingsType = TypeVar("SettingsType", bound=BaseModel)


def parse(kind: type[SettingsType], raw: Any) -> SettingsType:
    """Validate plain data as `kind`; pydantic's ValidationError lists what is wrong.

    It goes through JSON: lists become tuples, and what JSON lacks (dates) is reported as text.
    """
    return kind.model_validate_json(json.dumps(raw, default=str))


def patch_of(kind: type[Settings]) -> type[Settings]:
    """Return a class of changes to `kind`, with every field optional, in nested sections too.

    Types and ranges are those of `kind`. The validators of its class, which compare settings with
    one another, are left out: a patch has only some of them.
    """
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            annotation = patch_of(annotation)
        optional = Field(None, description=field.description)  # not validated: null is an error
        fields[name] = (Annotated[annotation, *field.metadata, optional], None)
    name = f"{kind.__name__}Patch"
    patch = create_model(name, __base__=Settings, __module__=kind.__module__, **fields)
    patch.RENAMED = kind.RENAMED
    return patch


def read_settings(path: Path, kind: type[SettingsType], *others: Path) -> SettingsType:
    """Read the settings that the resolve stage wrote for a stage; InputError lists problems.

    Settings in `others` are merged over those in `path`. They may be below the key `resolved`.
    """
    record = reduce(merge, map(read_json, (path, *others)))
    try:
        return parse(kind, record.get(RESOLVED, record))
    except ValidationError as error:
        raise InputError(*(f"{path}: {text}" for text in setting_problems(error, kind))) from error


def setting_problems(
    error: ValidationError, kind: type[BaseModel], *, prefix: tuple[str, ...] = ()
) -> list[str]:
    """Return each problem as "key is value; what is allowed", keys dotted as `-S` takes them.

    An old key is reported as renamed; that its new key is missing is then not reported too.
    """
    details = error.errors()
    renamed = [new for detail in details if (new := _new_location(detail, kind)) is not None]
    return [
        _describe(detail, kind, prefix)
        for detail in details
        if not (detail["type"] == "missing" and detail["loc"] in renamed)
    ]


def _describe(detail: Mapping[str, Any], kind: type[BaseModel], prefix: tuple[str, ...]) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join((*prefix, *location))
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "extra_forbidden":
        new = _new_location(detail, kind)
        if new is not None:
            return f"{key} was renamed to {'.'.join((*prefix, *map(str, new)))}"
        section = _section_at(kind, location[:-1])
        allowed = [] if section is None else section.model_fields
        return f"{key} is not a setting; {choices(location[-1], allowed)}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{key} is {detail['input']!r}; {text[0].lower()}{text[1:]}"


def _new_location(detail: Mapping[str, Any], kind: type[BaseModel]) -> tuple[Any, ...] | None:
    """Return where the setting of an old key is now; None if the problem is another one."""
    if detail["type"] != "extra_forbidden":
        return None
    *section_at, key = detail["loc"]
    section = _section_at(kind, [str(part) for part in section_at])
    if section is None or not issubclass(section, Settings) or key not in section.RENAMED:
        return None
    return (*section_at, section.RENAMED[key])


def choices(wrong: str, allowed: Collection[str]) -> str:
    """List the allowed names, with the nearest: "did you mean rrdb? allowed: cnn3, rrdb"."""
    near = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(sorted(allowed)) or 'none'}"


def _section_at(kind: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    """Return the class of the section at a location; names chosen by a user are keys of dicts."""
    found: Any = kind
    for part in location:
        if get_origin(found) is dict:
            found = get_args(found)[1]
        elif isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(part)
            found = None if field is None else field.annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with changes over it, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of nested sections with dotted keys, as `-S` takes them."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
