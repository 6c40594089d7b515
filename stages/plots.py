"""Draw the figures, and write the tables of DVC's charts, from the results of other stages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from minet.core.cli import parse_paths, run
from minet.core.files import read_csv, read_json, write_csv
from minet.evaluate.confusion import (
    Cell,
    Pair,
    Recall,
    class_fractions,
    confused_pairs,
    confusion_cells,
    confusion_matrix,
    confusion_order,
    recalls,
)
from minet.figures import SPLITS, channel_bars, confusion, curves, gallery

_INPUTS = ("metadata", "train", "history", "predictions", "classes", "channels", "mistakes")
_MAX_PAIRS = 20


def main() -> None:
    """Write each figure as a PNG, and each chart's table as a CSV, into the folder of plots."""
    args = parse_paths(__doc__, *_INPUTS, "out")
    model = read_json(args.metadata)["model"]
    names = [row["name"] for row in read_csv(args.classes)]  # pandas would read "001" as 1
    predictions = pd.read_csv(args.predictions)
    with np.load(args.mistakes) as file:
        mistakes = dict(file)
    history, best_epoch = pd.read_csv(args.history), read_json(args.train)["best_epoch"]
    _plot_curves(args.out, model, history, best_epoch)
    _plot_confusion(args.out, model, predictions, names)
    channel_mode = str(mistakes["channel_mode"])
    _plot_channels(args.out, model, read_json(args.channels), len(names), channel_mode)
    indices = mistakes["indices"]
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    title = f"{model}: {len(indices)} worst of {wrong} mistakes in {len(predictions)} test images"
    captions = list(_captions(predictions.take(indices), names))
    gallery(mistakes["pictures"], captions, args.out / "mistakes.png", title=title, columns=6)


def _plot_curves(out: Path, model: str, history: pd.DataFrame, best_epoch: int) -> None:
    curves(history, best_epoch, out / "curves.png", model=model)
    rows = [
        (word, epoch, loss, accuracy, "yes" if epoch == best_epoch else "no")
        for split, word in SPLITS.items()
        for epoch, loss, accuracy in zip(
            history["epoch"],
            history[f"{split}_loss"],
            history[f"{split}_accuracy"],
            strict=True,
        )
    ]
    _write(out / "curves.csv", model, ("split", "epoch", "loss", "accuracy", "best"), rows)


def _plot_confusion(out: Path, model: str, predictions: pd.DataFrame, names: Sequence[str]) -> None:
    labels, predicted = (predictions[name].to_numpy() for name in ("label", "predicted"))
    matrix = confusion_matrix(labels, predicted, len(names))
    order = confusion_order(matrix)
    matrix, names = matrix[np.ix_(order, order)], [names[label] for label in order]
    pairs = confused_pairs(matrix, names, _MAX_PAIRS)
    worst = [(pair.true, pair.predicted, f"{pair.images} of {pair.of}") for pair in pairs]
    fractions = class_fractions(matrix)
    confusion(fractions, names, worst, out / "confusion.png", title=f"Confusion of {model}")
    _write(out / "confusion.csv", model, Cell._fields, confusion_cells(matrix, names))
    _write(out / "confused_pairs.csv", model, Pair._fields, pairs)
    _write(out / "recall.csv", model, Recall._fields, recalls(matrix, names))


def _plot_channels(
    out: Path,
    model: str,
    channels: Mapping[str, Mapping[str, float]],
    num_classes: int,
    channel_mode: str,
) -> None:
    path = out / "channels.png"
    channel_bars(channels, num_classes, path, model=model, channel_mode=channel_mode)
    chance = 1 / num_classes
    figures = ("accuracy", "accuracy_low", "accuracy_high")
    rows = [
        (name, *(record[figure] for figure in figures), chance) for name, record in channels.items()
    ]
    _write(out / "channel_sets.csv", model, ("channels", *figures, "chance"), rows)


def _write(
    path: Path, model: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a table whose last column is the model: charts of several runs name each run's."""
    write_csv(path, (*columns, "model"), ((*row, model) for row in rows))


def _captions(rows: pd.DataFrame, names: list[str]) -> Iterator[str]:
    """Yield the true class, the predicted class and its probability of each image."""
    columns = (rows["label"], rows["predicted"], rows["probability"])
    for label, predicted, probability in zip(*columns, strict=True):
        yield f"{names[label]}\nas {names[predicted]}\n({probability:.2f})"


if __name__ == "__main__":
    run(main)
