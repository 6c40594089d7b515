"""The state of a run: best epoch, history, losses that are not finite."""

from typing import Any

import pytest
import torch

from minet.core.errors import InputError
from minet.train.state import EpochRecord, TrainState
from tests.helpers.small_run import (
    CPU,
    settings,
)


def test_the_best_epoch_is_the_first_with_the_best_loss_or_accuracy(raw_params) -> None:
    rows = [(0.9, 0.5), (0.7, 0.6), (0.8, 0.9), (0.7, 0.9)]
    for selection_metric, expected in (("loss", 1), ("accuracy", 2)):
        state, copied = TrainState(settings(raw_params, selection_metric=selection_metric), CPU), []

        def weights(copied: list[int] = copied, state: TrainState = state) -> dict[str, Any]:
            copied.append(state.epoch)
            return {"w": torch.tensor(float(state.epoch))}

        for epoch, (loss, accuracy) in enumerate(rows):
            state.end_epoch(EpochRecord(epoch, 1.0, 0.5, loss, accuracy, 0.1), weights)
        assert state.best_epoch == expected, selection_metric
        assert state.best_weights["w"] == expected
        assert copied == list(range(expected + 1)), "weights were copied that are not the best"


def test_a_validation_loss_that_is_not_finite_stops_the_run(raw_params) -> None:
    state = TrainState(settings(raw_params), CPU)
    with pytest.raises(InputError, match=r"cnn3: the validation loss is inf after step"):
        state.check_validation(float("inf"))


def test_the_columns_of_the_history_are_pinned() -> None:
    columns = list(EpochRecord.__dataclass_fields__)
    assert columns == ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
