"""Settings of the zoo: rows of published experiments, their data, what a run of all may cost."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from minet.augment.channels import ChannelSet
from minet.beton.config import BetonSettings
from minet.core.settings import AtLeastOne, Fraction, Settings
from minet.cost.config import CostRunSettings
from minet.data.config import DataSettings, SampleSettings
from minet.evaluate.config import EvaluateSettings
from minet.train.config import RunSettings, TrainSettings


def _is_a_word(name: str) -> str:
    # it stands in names of files and of DVC's stages
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError("must be of small letters, digits and underscores, a letter first")
    return name


Name = Annotated[str, AfterValidator(_is_a_word)]


class Published(Settings):
    """What a report prints of an experiment, and where; None is what it does not print.

    `cost` is as printed, by the report's own column names.
    """

    source: str = ""
    accuracy: Fraction | None = None  # of the test split
    max_accuracy: Fraction | None = None  # the best epoch's, by the test split
    val_accuracy: Fraction | None = None
    train_accuracy: Fraction | None = None
    kaggle: Fraction | None = None
    loss: float | None = None
    val_loss: float | None = None
    train_loss: float | None = None
    precision: Fraction | None = None
    recall: Fraction | None = None
    f1: Fraction | None = None
    epoch_s: float | None = None
    channels: dict[ChannelSet, Fraction] = Field(default_factory=dict)
    cost: dict[str, str] = Field(default_factory=dict)


class Row(Settings):
    """One experiment; it states what differs from the root's params.yaml.

    `data` is the folder of its index and betons, `initial` a key of the zoo's; `recipe` a key of
    the zoo's recipes, which `train` changes, and `budgets` by the name of a budget. `baseline` is
    the row that it is held against; `rule` the share of its accuracy that is asked for.
    `channels_line` joins rows that stand for one line of the table of channel sets.
    """

    report: str
    title: str
    model: str
    data: str
    initial: str
    recipe: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    budgets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    baseline: str | None = None
    rule: Fraction | None = None
    channels_line: str | None = None
    published: Published = Published()
    note: str = ""

    @field_validator("note")
    @classmethod
    def _on_one_line(cls, note: str) -> str:
        return " ".join(note.split())


class Variant(Settings):
    """Data of its own: another set of images, other labels, another size."""

    sample: SampleSettings
    data: DataSettings
    beton: dict[str, Any] = Field(default_factory=dict)


class Budget(Settings):
    """Changes of every row's recipe; without `pretrained`, all weights start at random."""

    pretrained: bool
    train: dict[str, Any] = Field(default_factory=dict)


class Zoo(Settings):
    """zoo/params.yaml, whole."""

    budget: str
    threads: AtLeastOne
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]
    budgets: dict[Name, Budget]
    variants: dict[Name, Variant]
    initials: dict[Name, str | None]
    recipes: dict[Name, dict[str, Any]]
    rows: Annotated[dict[Name, Row], Field(min_length=1)]

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("must be distinct")
        return seeds


class VariantSettings(Settings):
    """What the stages of a variant read."""

    sample: SampleSettings
    data: DataSettings
    beton: BetonSettings


class RowSettings(Settings):
    """What a row's stages read; `train` is of the first seed, `published` without the budget."""

    row: Row
    seeds: list[int]
    published: TrainSettings
    train: RunSettings
    evaluate: EvaluateSettings
    cost: CostRunSettings


class ZooSettings(Settings):
    """What holding rows against one another reads of all of them: their order."""

    budget: str
    rows: list[str]
