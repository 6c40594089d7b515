"""What TensorBoard and DVCLive are told of a run, for those who watch with them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from minet.core.errors import needs_group
from minet.train.state import EpochRecord

Told = Callable[[Sequence[EpochRecord], nn.Module], None]  # the history so far, the model


def to_tensorboard(folder: Path) -> Told:
    """Write each epoch's scalars and histograms of all weights into a folder of event files.

    A run that goes on hides what a killed one had written of the same epochs.
    """
    with needs_group("loggers"):
        from torch.utils.tensorboard import SummaryWriter  # here: it takes a second

    writers: list[SummaryWriter] = []

    def tell(history: Sequence[EpochRecord], model: nn.Module) -> None:
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=history[-1].epoch))
        (writer,) = writers
        last = asdict(history[-1])
        epoch = last.pop("epoch")
        for name, value in last.items():
            writer.add_scalar(_title(name), value, epoch)
        for name, weights in model.named_parameters():
            place = name.replace(".", "/")
            writer.add_histogram(place, weights.detach().cpu(), epoch)
        writer.flush()

    return tell


def to_dvclive(folder: Path) -> Told:
    """Write each epoch's scalars as DVCLive does, below a folder; the pipeline is left alone."""
    with needs_group("loggers"):
        from dvclive import Live

    lives: list[Live] = []
    told = 0  # epochs; DVCLive empties the folder, so a run that goes on tells all of them anew

    def tell(history: Sequence[EpochRecord], _: nn.Module) -> None:
        nonlocal told
        if not lives:  # here: another process may hold the run, and its figures must stay
            quiet: dict[str, Any] = {"save_dvc_exp": False, "dvcyaml": None, "report": None}
            lives.append(Live(str(folder), resume=False, monitor_system=False, **quiet))
        (live,) = lives
        for record in history[told:]:
            values = asdict(record)
            live.step = values.pop("epoch")
            for name, value in values.items():
                live.log_metric(_title(name), value)
        told = len(history)
        live.make_summary()

    return tell


def _title(name: str) -> str:
    """Give "train/loss" for "train_loss": what belongs together is drawn together."""
    return name.replace("_", "/", 1)
