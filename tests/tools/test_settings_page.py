"""docs/settings.md is generated from the settings classes, which describe every field."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from minet.core.settings import Settings, flatten
from minet.params import read_yaml
from tools.settings_page import PAGE, page


def classes(kind: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Yield all settings classes of the package."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("minet."):
            yield child
        yield from classes(child)


def test_the_page_is_up_to_date(root: Path) -> None:
    """Run `python -m tools.settings_page` if it is not."""
    assert (root / PAGE).read_text(encoding="utf-8") == page(root)


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_description_of_one_sentence(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        text = field.description
        assert text, f"{kind.__name__}.{name}"
        assert re.fullmatch(r"[A-Z](?!.*\. [A-Z]).*\.", text), f"{kind.__name__}.{name}: {text}"


def test_every_key_of_params_yaml_is_on_the_page_with_its_default(root: Path) -> None:
    text = (root / PAGE).read_text(encoding="utf-8")
    raw = read_yaml(root / "params.yaml")
    sections: Mapping[str, Any] = {
        name: value for name, value in raw.items() if name not in ("models", "recipes")
    }
    for key, value in flatten(sections):
        (line,) = re.findall(rf"^\| `{re.escape(key)}` \| .*", text, re.MULTILINE)
        default = line.split(" | ")[2]
        shown = value if isinstance(value, str) else json.dumps(value)
        assert default == f"`{shown}`", key


def test_the_page_names_ranges_and_choices(root: Path) -> None:
    text = page(root)
    for line in (
        "| `train.epochs` | integer ≥ 1 |",
        "| `train.lr` | number > 0 |",
        "| `train.gamma` | number in (0, 1] |",
        "| `train.ema_decay` | number in [0, 1) |",
        "| `train.optimizer` | `sgd`, `adam`, `adamw` |",
        "| `train.milestones` | list: integer ≥ 1 |",
        "| `train.augment.crop_scale` | list: 2 x number in [0, 1] |",
        "| `rows.<name>.baseline` | text or null |",
        "| `variants.<name>.sample` | as `sample` |",
    ):
        assert text.count(f"\n{line}") == 1, line
