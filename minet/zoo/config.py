"""Settings of the zoo: rows of published experiments, their data, and budgets of a run of all."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from minet.augment.channels import ChannelSet
from minet.beton.config import BetonSettings
from minet.core.settings import AtLeastOne, Fraction, Seed, Settings
from minet.cost.config import CostRunSettings
from minet.data.config import DataSettings, SampleRunSettings, SampleSettings
from minet.evaluate.config import EvaluateSettings
from minet.train.config import RunSettings, TrainSettings


def _check_name(name: str) -> str:
    # part of names of files and of DVC's stages
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError("must be lowercase letters, digits and underscores, a letter first")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


class Published(Settings):
    """The metrics that a report prints of an experiment; null where it prints none."""

    source: str = Field("", description="Where the report prints them.")
    accuracy: Fraction | None = Field(None, description="Test accuracy.")
    max_accuracy: Fraction | None = Field(
        None, description="Test accuracy of the epoch with the best one."
    )
    val_accuracy: Fraction | None = Field(None, description="Validation accuracy.")
    train_accuracy: Fraction | None = Field(None, description="Training accuracy.")
    kaggle: Fraction | None = Field(None, description="Score of the Kaggle competition.")
    loss: float | None = Field(None, description="Test loss.")
    val_loss: float | None = Field(None, description="Validation loss.")
    train_loss: float | None = Field(None, description="Training loss.")
    precision: Fraction | None = Field(None, description="Test precision.")
    recall: Fraction | None = Field(None, description="Test recall.")
    f1: Fraction | None = Field(None, description="Test F1 score.")
    epoch_s: float | None = Field(None, description="Seconds per epoch.")
    channels: dict[ChannelSet, Fraction] = Field(
        {}, description="Test accuracy by set of input channels."
    )
    cost: dict[str, str] = Field(
        {}, description="Costs as printed, by the report's own column names."
    )


class Row(Settings):
    """One experiment: its model and data, and what differs from the recipe that it names."""

    RENAMED: ClassVar[Mapping[str, str]] = {"rule": "target_ratio"}

    report: str = Field(description="Number of the report, or `ours`.")
    title: str = Field(description="Title of the experiment.")
    model: str = Field(description="Name of the model.")
    data: str = Field(
        description="Folder of its index and betons: `data`, or `zoo/data/<key of variants>`.",
    )
    initial: str = Field(description="Initial weights, a key of `initials`.")
    recipe: str = Field(description="Recipe, a key of the zoo's `recipes`.")
    arguments: dict[str, Any] = Field({}, description="Changes of the model's arguments.")
    train: dict[str, Any] = Field({}, description="Changes of the recipe.")
    evaluate: dict[str, Any] = Field({}, description="Changes of `evaluate`.")
    budgets: dict[str, dict[str, Any]] = Field(
        {}, description="Changes of the recipe by the name of a budget, over those of the budget."
    )
    baseline: str | None = Field(
        None, description="The row that it is compared with; null is none."
    )
    target_ratio: Fraction | None = Field(
        None, description="Fraction of the baseline's accuracy to reach; null is none."
    )
    channels_line: str | None = Field(
        None, description="Name of the line that rows share in the table of channel sets."
    )
    published: Published = Field(
        Published(), description="The metrics that the report prints of it."
    )
    note: str = Field("", description="What a reader should know about it.")

    @field_validator("note")
    @classmethod
    def _on_one_line(cls, note: str) -> str:
        return " ".join(note.split())


class Variant(Settings):
    """A data set of the zoo: other images, labels or sizes than the root's."""

    sample: SampleSettings = Field(description="The synthetic data set.")
    data: DataSettings = Field(description="The images.")
    beton: dict[str, Any] = Field({}, description="Changes of `beton`.")


class Budget(Settings):
    """How much a run of the zoo may cost."""

    pretrained: bool = Field(
        description="Use pretrained initial weights; `false` starts every row from random ones.",
    )
    train: dict[str, Any] = Field({}, description="Changes of every row's recipe.")


class Zoo(Settings):
    """zoo/params.yaml as a whole."""

    budget: str = Field(description="The budget, a key of `budgets`.")
    threads: AtLeastOne = Field(
        description="CPU threads of each row; the number changes floating-point rounding.",
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        description="Seeds that each row is trained with, all distinct.",
    )
    budgets: dict[Name, Budget] = Field(description="Budgets by name.")
    variants: dict[Name, Variant] = Field(description="Data sets other than the root's.")
    initials: dict[Name, str | None] = Field(
        description="Initial weights by name: a model whose ImageNet weights are used, or null "
        "for random ones.",
    )
    recipes: dict[Name, dict[str, Any]] = Field(
        description="Changes of the root's `recipes.default` that rows share.",
    )
    rows: Annotated[dict[Name, Row], Field(min_length=1)] = Field(
        description="The experiments.",
    )

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("must be distinct")
        return seeds


class VariantSettings(Settings):
    """Settings of the stages of a variant."""

    sample: SampleRunSettings = Field(description="The synthetic data set.")
    data: DataSettings = Field(description="The images.")
    beton: BetonSettings = Field(description="How images are stored.")


class RowSettings(Settings):
    """Settings of a row's stages."""

    row: Row = Field(description="The row as zoo/params.yaml has it.")
    seeds: list[int] = Field(description="Seeds that the row is trained with.")
    published: TrainSettings = Field(description="The recipe as published, without the budget.")
    train: RunSettings = Field(description="Settings of training with the first seed.")
    evaluate: EvaluateSettings = Field(description="Settings of evaluation.")
    cost: CostRunSettings = Field(description="Settings of the cost, as published.")


class ZooSettings(Settings):
    """Settings of the comparison of rows."""

    budget: str = Field(description="Name of the budget.")
    rows: list[str] = Field(description="Names of the rows, in the order of zoo/params.yaml.")
