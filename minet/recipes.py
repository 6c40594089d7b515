"""Recipes as layers of settings: which value wins, where it stands, and which have no effect."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from minet.augment.channels import tested_sets
from minet.augment.config import mixes
from minet.core.settings import Settings, flatten, merge, parse, patch_of, setting_problems
from minet.train.config import TrainSettings

if TYPE_CHECKING:
    TrainPatch = Settings  # its fields are optional
else:
    TrainPatch = patch_of(TrainSettings)


DEFAULT_RECIPE = "default"


class Layer(NamedTuple):
    """Settings of training, and the key below which they stand."""

    place: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A recipe as layers: the first one has all settings, and each wins over those before it."""

    layers: tuple[Layer, ...]

    def over(self, place: str, changes: Any) -> "Recipe":
        """Return the recipe with one more layer."""
        return Recipe((*self.layers, Layer(place, changes)))

    def merged(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return reduce(merge, (layer.changes for layer in self.layers), {})

    def settings(self) -> TrainSettings:
        """Return the settings; pydantic's ValidationError lists what is wrong."""
        return parse(TrainSettings, self.merged())

    def place(self, key: str) -> str:
        """Return the full key of the value that wins: "recipes.fast.lr" for "lr"."""
        layers = [layer for layer in self.layers if key in dict(flatten(layer.changes))]
        place = (layers or self.layers)[-1 if layers else 0].place
        return f"{place}.{key}" if place else key

    def problems(self) -> list[str]:
        """Return what is wrong with the last layer: by itself, with the others, without effect."""
        last = self.layers[-1]
        return (
            change_problems(*last)
            or self.contradictions()
            or [": ".join(texts) for texts in self.ineffective(last)]
        )

    def contradictions(self) -> list[str]:
        """Return problems of the settings as a whole, each with the places of its settings."""
        try:
            self.settings()
        except ValidationError as error:
            return [self._with_places(text) for text in setting_problems(error, TrainSettings)]
        return []

    def differences(self) -> list[str]:
        """Return a line for each layer that changes those before it: "train: lr 0.1, not 0.001"."""
        lines = []
        for count, (place, changes) in enumerate(self.layers[1:], start=1):
            below = dict(flatten(Recipe(self.layers[:count]).merged()))
            pairs = ((key, value, below[key]) for key, value in flatten(changes))
            texts = [f"{key} {value}, not {old}" for key, value, old in pairs if value != old]
            lines += [f"{place}: {'; '.join(texts)}"] if texts else []
        return lines

    def _with_places(self, problem: str) -> str:
        """Return a problem of TrainSettings with the places of the settings that it names."""
        what, separator, text = problem.partition("; ")
        text = _NAMES.sub(lambda name: self.place(_KEYS[name[0]]), text)
        key, _, value = what.partition(" ")
        if separator and key == "augment":  # the text names one of its settings
            return text
        return f"{self.place(key)} {value}{separator}{text}"

    def ineffective(self, layer: Layer) -> Iterator[tuple[str, str]]:
        """Yield values of a layer that change nothing, with why, and what to write instead."""
        given, settings = dict(flatten(layer.changes)), self.settings()
        values = dict(flatten(settings.model_dump(mode="json")))
        for rule in _RULES:
            if rule.key in given and rule.unless not in given and rule.hidden(settings):
                why = " and ".join(f"{self.place(key)} is {values[key]!r}" for key in rule.by)
                value = f"{layer.place}.{rule.key} is {given[rule.key]!r}"
                needs = f"set {layer.place}.{rule.needs} too, or leave it out"
                yield f"{value}; it has no effect where {why}", needs


# other settings in messages of TrainSettings, with their keys
_KEYS = {name: name for name in ("epochs", "batch_size", "input_px", "momentum", "channel_mode")}
_KEYS |= {name: f"augment.{name}" for name in ("channel_shuffle", "channel_dropout")}
_NAMES = re.compile(rf"\b({'|'.join(_KEYS)})\b")


class _Rule(NamedTuple):
    """When a setting that was given changes nothing: through which others, and what it needs."""

    key: str
    by: tuple[str, ...]
    needs: str
    hidden: Callable[[TrainSettings], bool]
    unless: str = ""  # a setting that, given beside it, shows that this is known


# a value that turns something off (0, false, []) describes a run without it, and is not refused
_SGD, _STEP = (("optimizer",), "optimizer=sgd"), (("schedule",), "schedule=step")
_MILESTONES = (("milestones",), "milestones")
_CROP, _BATCH = "augment.crop_scale", (("batch_size",), "batch_size above 1")
_RULES = (
    _Rule("momentum", *_SGD, lambda r: r.optimizer != "sgd"),
    _Rule("nesterov", *_SGD, lambda r: r.nesterov and r.optimizer != "sgd"),
    _Rule("decay_norm_and_bias", ("weight_decay",), "weight_decay", lambda r: not r.weight_decay),
    _Rule("milestones", *_STEP, lambda r: bool(r.milestones) and r.schedule != "step"),
    _Rule(
        "milestones",
        ("epochs",),
        "epochs above each of them",
        lambda r: r.schedule == "step" and max(r.milestones, default=0) >= r.epochs,
    ),
    _Rule("gamma", *_STEP, lambda r: r.schedule != "step"),
    _Rule("gamma", *_MILESTONES, lambda r: r.schedule == "step" and not r.milestones),
    _Rule("schedule", *_MILESTONES, lambda r: r.schedule == "step" and not r.milestones),
    _Rule(
        "schedule",
        ("warmup_epochs", "epochs"),
        "warmup_epochs below epochs",
        lambda r: r.schedule != "step" and r.warmup_epochs >= r.epochs,
    ),
    _Rule("selection_metric", ("epochs",), "epochs above 1", lambda r: r.epochs == 1),
    _Rule(
        "initial_px",
        ("growth_epochs", "input_px"),
        "growth_epochs, and input_px above it",
        lambda r: r.initial_px > 0 and (not r.growth_epochs or r.initial_px == r.input_px),
    ),
    _Rule(
        "growth_epochs",
        ("initial_px", "input_px"),
        "initial_px below input_px",
        lambda r: r.growth_epochs > 0 and r.initial_px in (0, r.input_px),
    ),
    _Rule(
        "channel_mode",
        ("channels",),
        "channels",
        lambda r: r.channel_mode == "slice" and r.channels == "RGB",
        unless="channels",  # all three are one of several sets that are compared
    ),
    _Rule("augment.crop_ratio", (_CROP,), _CROP, lambda r: not _crops(r)),
    _Rule("augment.mixup_alpha", *_BATCH, lambda r: mixes(r.augment) and r.batch_size == 1),
    _Rule("augment.cutmix_alpha", *_BATCH, lambda r: mixes(r.augment) and r.batch_size == 1),
    _Rule(
        "compat.random_test_crop",
        (_CROP, "augment.flip", "augment.rotation_degrees"),
        _CROP,
        lambda r: (
            r.compat.random_test_crop
            and not (_crops(r) or r.augment.flip or r.augment.rotation_degrees)
        ),
    ),
)


def _crops(recipe: TrainSettings) -> bool:
    return recipe.augment.crop_scale != (1, 1)


def named_recipe(recipes: Mapping[str, Settings], name: str) -> Recipe:
    """Return a recipe by its name: `default`, over which the others are layers."""
    default = Recipe((Layer(f"recipes.{DEFAULT_RECIPE}", given(recipes[DEFAULT_RECIPE])),))
    if name == DEFAULT_RECIPE:
        return default
    return default.over(f"recipes.{name}", given(recipes[name]))


def given(patch: Settings) -> dict[str, Any]:
    """Return the settings of a patch that are not null, as plain data."""
    return patch.model_dump(mode="json", exclude_none=True)


def change_problems(place: str, changes: Any) -> list[str]:
    """Return problems of changes by themselves: unknown settings, types, ranges."""
    if not isinstance(changes, Mapping):
        return [f"{place} is {changes!r}; must be a mapping of settings of training"]
    return model_problems(TrainPatch, changes, place)


def model_problems(kind: type[BaseModel], raw: Mapping[str, Any], *prefix: str) -> list[str]:
    """Return problems of plain data as `kind`, with keys below `prefix`."""
    try:
        parse(kind, raw)
    except ValidationError as error:
        return setting_problems(error, kind, prefix=prefix)
    return []


def channel_test_problems(place: str, missing_channels: str, recipe: Recipe) -> Iterator[str]:
    """Yield a problem of `missing_channels` of the evaluation, given at `place`."""
    settings = recipe.settings()
    of_run = settings.channels, settings.channel_mode
    if missing_channels != "zero" and tested_sets(*of_run, missing_channels) == tested_sets(
        *of_run, "zero"
    ):
        why = f"{recipe.place('channels')} is {settings.channels!r}"
        why += f" and {recipe.place('channel_mode')} is {settings.channel_mode!r}"
        yield (
            f"{place}.missing_channels is {missing_channels!r}; it has no effect where {why}: "
            "set zero, or train on RGB"
        )
