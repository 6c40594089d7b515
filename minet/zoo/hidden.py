"""Settings that rows do not follow: of the root's experiments, and those that a budget cuts."""

from collections.abc import Iterator
from typing import Any

from minet.core.settings import flatten
from minet.params import Params
from minet.recipes import given
from minet.zoo.config import Zoo
from minet.zoo.rows import published_recipe, within_budget


def hidden_settings(zoo: Zoo, params: Params) -> Iterator[str]:
    """Yield what was set and changes no row, or is other than rows say, for `rows` to print."""
    keys = ", ".join(f"train.{key}" for key, _ in flatten(given(params.train)))
    if keys:
        yield f"params.yaml: {keys} change no row: rows are based on recipes.default"
    if params.recipe is not None:
        yield f"params.yaml: recipe {params.recipe} changes no row: each has a recipe of the zoo"
    yield from _cut_by_budget(zoo, params)


def _cut_by_budget(zoo: Zoo, params: Params) -> Iterator[str]:
    """Yield the settings that the budget changes, with those of the rows and their number."""
    cut: dict[str, list[Any]] = {}
    without_effect: dict[str, None] = {}
    for name in zoo.rows:
        published = published_recipe(name, zoo, params)
        limited = within_budget(published, name, zoo, zoo.budget)
        old, new = (dict(flatten(one.merged())) for one in (published, limited))
        for key, value in new.items():
            if value != old[key]:
                cut.setdefault(f"{key} is {value!r}", []).append(old[key])
        for layer in published.layers[2:]:  # after the root's recipe and the zoo's threads
            texts = (text for text, _ in limited.ineffective(layer))
            without_effect |= dict.fromkeys(texts)
    if not zoo.budgets[zoo.budget].pretrained:
        initial = [row.initial for row in zoo.rows.values() if zoo.initials[row.initial]]
        cut |= {"initial is random": initial} if initial else {}
    for what, values in cut.items():
        others = ", ".join(map(str, sorted(set(values))))
        yield f"budget {zoo.budget}: {what} in {len(values)} of {len(zoo.rows)} rows, not {others}"
    yield from (f"budget {zoo.budget}: {text}" for text in without_effect)
