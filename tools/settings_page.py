"""Write docs/settings.md from the settings classes and YAML: python -m tools.settings_page."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from minet.core.files import atomic_write
from minet.core.settings import Settings, flatten
from minet.params import Params, read_yaml
from minet.recipes import DEFAULT_RECIPE, TrainPatch
from minet.train.config import TrainSettings
from minet.zoo.config import Zoo

PAGE, PARAMS, ZOO = Path("docs/settings.md"), Path("params.yaml"), Path("zoo/params.yaml")
_PARAMS_TITLE = """# Settings

`python -m tools.settings_page` writes this page from the settings classes (`minet/*/config.py`,
`minet/params.py`) and the committed values: edit those, not the page.

`dvc exp run -S <key>=<value>` changes a setting of `params.yaml` for one experiment. A list is
written as `-S 'train.milestones=[6,9]'`, an empty value as `null`; `-S +<key>=<value>` adds a key
that the file does not have, such as `+recipes.cnn3.epochs=20`. All settings are checked before
any stage runs: one that is not allowed, or that others leave without effect, is an error.

Training has the settings of `recipes.default`, over them those of one other recipe (`recipe`, or
else the one that the model names), and over both those under `train`. Each key of `train` is null
in `params.yaml`, as the recipe says; below, its default is that of `recipes.default`.
"""
_MODELS_TITLE = """## `models.<model>`

A block has the model's arguments; `weights`, which are `random`, `imagenet` (where torchvision has
them) or the name of a file in `data/weights`; and `recipe`, a key of `recipes`, `default` where it
is left out.
"""
_ZOO_TITLE = """# Settings of the zoo

The keys of `zoo/params.yaml`, changed in `zoo/` by `dvc exp run -S <key>=<value>`.
"""


def main() -> None:
    """Write the page."""
    with atomic_write(PAGE) as partial:
        partial.write_text(page(Path()), encoding="utf-8")


def page(root: Path) -> str:
    """Return the page of the tree at `root`, as markdown."""
    params, zoo = read_yaml(root / PARAMS), read_yaml(root / ZOO)
    params["train"] = params["recipes"][DEFAULT_RECIPE]
    keys: dict[type[Settings], str] = {}
    blocks = [
        _PARAMS_TITLE,
        *_sections(Params, params, "", keys),
        _MODELS_TITLE,
        _models_table(params["models"]),
        _ZOO_TITLE,
        *_sections(Zoo, zoo, "", keys),
    ]
    return "\n".join(blocks)


def _sections(
    kind: type[Settings],
    values: Mapping[str, Any] | None,
    prefix: str,
    keys: dict[type[Settings], str],
) -> Iterator[str]:
    """Yield the table of a section, then those of its sections; a class already in `keys` is named.

    `values` are those of the YAML file; None below a name that users choose.
    """
    schema = kind.model_json_schema()["properties"]
    rows, inner = [], []
    for name, field in kind.model_fields.items():
        section, by_name = _section(field)
        key = f"{prefix}{name}.<name>" if by_name else f"{prefix}{name}"
        if section is None:
            default = _default(field) if values is None else _code(values[name])
            rows.append((_code(key), _allowed(schema[name]), default, field.description))
        elif section in keys:
            rows.append((_code(key), f"as {_code(keys[section])}", "", field.description))
        else:
            keys[section] = key
            below = None if values is None or by_name else values[name]
            inner.append((section, below, key, field.description))
    yield _table(("key", "value", "default", "description"), rows)
    for section, below, key, description in inner:
        yield f"## {_code(key)}\n\n{description}\n"
        yield from _sections(section, below, f"{key}.", keys)


def _section(field: FieldInfo) -> tuple[type[Settings] | None, bool]:
    """Return the class of a field that is a section, and whether it is one of several by name."""
    by_name = get_origin(field.annotation) is dict
    kind = get_args(field.annotation)[1] if by_name else field.annotation
    kind = TrainSettings if kind is TrainPatch else kind
    if isinstance(kind, type) and issubclass(kind, Settings):
        return kind, by_name
    return None, False


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema allows, in words: "integer ≥ 1", "number in [0, 1)"."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    if schema["type"] == "array":
        items = [_allowed(item) for item in schema.get("prefixItems", [schema.get("items")])]
        count = f"{schema['maxItems']} x " if "maxItems" in schema else ""
        return f"list: {count}{items[0]}"
    kind = {"string": "text", "object": "mapping"}.get(schema["type"], schema["type"])
    return f"{kind}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return ""
    if high is None:
        return f" ≥ {low:g}" if "minimum" in schema else f" > {low:g}"
    left = "[" if "minimum" in schema else "("
    right = "]" if "maximum" in schema else ")"
    return f" in {left}{low}, {high}{right}"


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else _code(field.default)


def _code(value: object) -> str:
    """Return a value as YAML on one line, in backticks; nothing for a mapping or empty text."""
    if isinstance(value, Mapping) or value == "":
        return ""
    return f"`{_yaml(value)}`"


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _models_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the keys of each model's block with their committed values."""
    rows = []
    for name, block in models.items():
        values = (f"{key}: {_yaml(value)}" for key, value in flatten(block))
        rows.append((_code(f"models.{name}"), ", ".join(map(_code, values))))
    return _table(("block", "keys and defaults"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    main()
