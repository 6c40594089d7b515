"""Reports of a run: what it prints, its history, logs for TensorBoard and DVCLive."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from minet.core.cli import progress_bar
from minet.core.errors import needs_group
from minet.core.files import write_csv
from minet.loader.batch import Batch
from minet.train.config import RunSettings
from minet.train.context import Callbacks
from minet.train.state import EpochRecord

_COLUMNS = tuple(field.name for field in fields(EpochRecord))


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


def report(history: Path, settings: RunSettings, root: Path, name: str) -> Callbacks:
    """Return callbacks that show steps and epochs, and write the history and the logs that are on.

    Logs are written to `tensorboard/<name>` and `dvclive/<name>` below `root`.
    """
    recipe = settings.train
    loggers: list[Logger] = []
    if recipe.tensorboard:
        loggers.append(TensorBoardLogger(root / "tensorboard" / name))
    if recipe.dvclive:
        loggers.append(DVCLiveLogger(root / "dvclive" / name))

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
        what = f"epoch {epoch} ({epoch + 1} of {recipe.epochs})"
        what += f" from step {done}" if done else ""
        return progress_bar(batches, total - done, what, images_each=recipe.batch_size)

    def write(records: list[EpochRecord]) -> None:
        write_csv(history, _COLUMNS, map(astuple, records))

    def epoch(records: list[EpochRecord], model: nn.Module) -> None:
        last = records[-1]
        print(
            f"epoch {last.epoch} ({last.epoch + 1} of {recipe.epochs}): "
            f"train loss {last.train_loss:.4f}, accuracy {last.train_accuracy:.3f}; "
            f"val loss {last.val_loss:.4f}, accuracy {last.val_accuracy:.3f}",
            flush=True,
        )
        for logger in loggers:
            logger.log(records, model)

    return Callbacks(steps=steps, history=write, epoch=epoch)


def _title(name: str) -> str:
    """Return "train/loss" for "train_loss": titles with the same prefix are drawn together."""
    return name.replace("_", "/", 1)
