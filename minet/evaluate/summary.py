"""The summary of a model: the few numbers that models are compared by."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from minet.core.settings import Settings

RECORDS = ("test", "train", "cost", "speed")  # of a run, from which the numbers come
_METRICS = {
    "test": ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "loss"),
    "train": ("val_accuracy",),
    "cost": ("parameters", "macs"),
}


class PublishSettings(Settings):
    """Settings of the stage `publish`."""

    models: tuple[str, ...] = Field(
        description="Names of the models in the table, the chosen one first.",
    )


def summary(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the record of metrics/test.json from those of `test`, `train` and `cost`.

    Accuracies, F1 and loss are of the test split, but for val_accuracy, that of the epoch whose
    weights are kept; `macs` are multiply-adds of one forward pass of one image.
    """
    return {key: records[name][key] for name, keys in _METRICS.items() for key in keys}


def table_row(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row of metrics/models.csv: name, summary, and seconds per epoch (the median)."""
    speed = records["speed"]
    return {"model": speed["model"], **summary(records), "epoch_s": speed["epoch_s_median"]}
