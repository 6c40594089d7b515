"""Logs of a run for TensorBoard and DVCLive."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from minet.core.errors import needs_group
from minet.train.state import EpochRecord


class Logger(Protocol):
    """What logs a run after each epoch."""

    def log(self, history: Sequence[EpochRecord], model: nn.Module) -> None:
        """Log the last epoch of the history so far, and the model as it is then."""
        ...


class TensorBoardLogger:
    """Scalars and histograms of all weights, an epoch a step, in a folder of event files.

    A resumed run hides what a killed one wrote of the same epochs. Nothing is written before the
    first epoch is logged. InputError if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        with needs_group("loggers"):
            from torch.utils.tensorboard import SummaryWriter  # here: it takes a second

        self._open = partial(SummaryWriter, str(folder))
        self._writer: SummaryWriter | None = None

    def log(self, history: Sequence[EpochRecord], model: nn.Module) -> None:
        """Write the last epoch's scalars and the weights' histograms."""
        values = asdict(history[-1])
        epoch = values.pop("epoch")
        if self._writer is None:
            self._writer = self._open(purge_step=epoch)
        for name, value in values.items():
            self._writer.add_scalar(_title(name), value, epoch)
        for name, weights in model.named_parameters():
            title = name.replace(".", "/")
            self._writer.add_histogram(title, weights.detach().cpu(), epoch)
        self._writer.flush()


class DVCLiveLogger:
    """Scalars in a folder, in DVCLive's format; the pipeline and its experiments are not touched.

    DVCLive empties the folder, so a resumed run logs its whole history again. Nothing is touched
    before the first epoch: another process may own the run. InputError if DVCLive is not installed.
    """

    def __init__(self, folder: Path) -> None:
        with needs_group("loggers"):
            from dvclive import Live

        options: dict[str, Any] = {"save_dvc_exp": False, "dvcyaml": None, "report": None}
        self._open = partial(Live, str(folder), resume=False, monitor_system=False, **options)
        self._live: Live | None = None
        self._logged = 0  # epochs

    def log(self, history: Sequence[EpochRecord], _: nn.Module) -> None:
        """Write the scalars of all epochs that are not logged yet."""
        if self._live is None:
            self._live = self._open()
        for record in history[self._logged :]:
            values = asdict(record)
            self._live.step = values.pop("epoch")
            for name, value in values.items():
                self._live.log_metric(_title(name), value)
        self._logged = len(history)
        self._live.make_summary()


def _title(name: str) -> str:
    """Return "train/loss" for "train_loss": titles with the same prefix are drawn together."""
    return name.replace("_", "/", 1)
