"""Figures: one function each, from tables to a PNG; the only module that imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from minet.core.arrays import Pixels, ceil_div
from minet.core.files import atomic_write

mpl.rcParams["text.parse_math"] = False  # "$5 to $10" is a class name, not a formula

_MAX_LETTERS = 28  # of a class name or a line of a caption: longer ones would overlap
_MAX_NUMBERED = 20  # classes of a confusion matrix with numbers in its cells
_TABLE_ROWS = 10
_MIN_LABEL_PT = 5.0
SPLITS = {"train": "training", "val": "validation"}  # in the legend, by name in the history
_RUN_COLOUR = "#1a86c8"  # the first of .dvc/plots/*.json
_CHANNEL_COLOURS = {"R": "#c23b22", "G": "#3a8a3a", "B": "#2f5fb3"}
# what happens to the channels outside a set, by channel mode (`minet.augment.channels`)
_OTHER_CHANNELS = {
    "zero": "others set to 0",
    "slice": "others left out",
    "sigmoid": "sigmoid of their bytes, others left out",
}


def curves(history: pd.DataFrame, best_epoch: int, path: Path, *, model: str) -> None:
    """Plot loss and accuracy of training and validation by epoch, the best epoch marked.

    Lines are as in .dvc/plots/curves.json: a run has one colour, training is dashed.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for split, label in SPLITS.items():
            style = {"linestyle": "-"} if split == "val" else {"linestyle": (0, (4, 3))}
            values = history[f"{split}_{name}"]
            axis.plot(history["epoch"], values, color=_RUN_COLOUR, marker=".", label=label, **style)
        axis.set(xlabel="epoch", ylabel="cross-entropy (nats)" if name == "loss" else name)
        axis.set_title(f"{name.capitalize()} of {model}")
        axis.axvline(best_epoch, color="grey", linestyle=":", label="best epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[1].set_ylim(0, 1)
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(lines))
    _save(figure, path)


def confusion(
    fractions: NDArray[np.float64],
    names: Sequence[str],
    worst: Sequence[tuple[str, str, str]],
    path: Path,
    *,
    title: str,
) -> None:
    """Plot a confusion matrix (K, K) whose rows, the true classes, sum to 1 (0 without images).

    `worst` are pairs of a true and a predicted class with their number of images, the worst first;
    they stand below a matrix that is too large for numbers in its cells. Labels of classes are left
    out where they would overlap.
    """
    matrix_in = _matrix_inches(len(names))
    label_pt = min(9.0, 0.8 * 72 * matrix_in / len(names))
    shown = [_short(name) for name in names] if label_pt >= _MIN_LABEL_PT else []
    labels_in = 0.5 + 0.6 * label_pt / 72 * max(map(len, shown), default=0)
    table = worst[:_TABLE_ROWS] if len(names) > _MAX_NUMBERED else []
    heights = [matrix_in + labels_in + 0.5, *([0.25 * (len(table) + 1)] if table else [])]
    size = (matrix_in + labels_in + 1.3, sum(heights))
    figure, axes = plt.subplots(
        len(heights), figsize=size, height_ratios=heights, layout="constrained", squeeze=False
    )
    axis = axes[0, 0]
    image = axis.imshow(fractions, norm=PowerNorm(0.5, vmin=0, vmax=1), cmap="Blues")
    axis.set_xticks(range(len(shown)), shown, rotation=90, size=label_pt)
    axis.set_yticks(range(len(shown)), shown, size=label_pt)
    axis.set(xlabel=f"predicted ({len(names)} classes, sorted by confusion)", ylabel="true")
    axis.set_title(title)
    if len(names) <= _MAX_NUMBERED:
        _number_cells(axis, fractions)
    label = "share of the true class"
    figure.colorbar(image, ax=axis, label=label, shrink=0.8, aspect=20 * max(1, matrix_in / 5))
    if table:
        _draw_table(axes[1, 0], table)
    _save(figure, path)


def _matrix_inches(num_classes: int) -> float:
    """Return the side of a confusion matrix: cells for numbers if few, for labels if more."""
    return min(max(2.5, 0.42 * num_classes), max(8.4, 0.115 * num_classes), 11.6)


def _number_cells(axis: Axes, fractions: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(fractions), strict=True):
        fraction = fractions[row, column]
        colour = "white" if fraction > 0.4 else "black"
        axis.text(column, row, f"{fraction:.2f}", ha="center", va="center", color=colour, size=8)


def _draw_table(axis: Axes, worst: Sequence[tuple[str, str, str]]) -> None:
    axis.axis("off")
    cells = [[_short(true), _short(predicted), images] for true, predicted, images in worst]
    table = axis.table(
        cells,
        colLabels=["true", "predicted as", "images"],
        cellLoc="left",
        colLoc="left",
        loc="center",
        edges="open",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)


def channel_bars(
    channels: Mapping[str, Mapping[str, float]],
    num_classes: int,
    path: Path,
    *,
    model: str,
    channel_mode: str,
) -> None:
    """Plot the accuracy on each channel set with 95 % intervals, and chance level.

    `channel_mode` is how the channels outside a set were treated.
    """
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for position, (name, record) in enumerate(channels.items()):
        accuracy = record["accuracy"]
        error = [[accuracy - record["accuracy_low"]], [record["accuracy_high"] - accuracy]]
        colour = _CHANNEL_COLOURS.get(name, "#777777")
        axis.bar(position, accuracy, yerr=error, capsize=4, color=colour, width=0.7)
        top = record["accuracy_high"] + 0.02
        axis.text(position, top, f"{accuracy:.3f}", ha="center", va="bottom", size=9)
    axis.axhline(1 / num_classes, color="black", linestyle=":", linewidth=1, label="chance")
    axis.legend()
    axis.set_xticks(range(len(channels)), list(channels))
    label = f"channels given ({_OTHER_CHANNELS[channel_mode]})"
    axis.set(
        ylim=(0, 1.1),
        ylabel="test accuracy",
        xlabel=label,
        title=f"Accuracy by channels of {model}",
    )
    _save(figure, path)


def gallery(
    pictures: Pixels, captions: Sequence[str], path: Path, *, title: str, columns: int
) -> None:
    """Draw pictures (M, H, W, 3) in a grid, each under its caption."""
    rows = max(1, ceil_div(len(pictures), columns))
    lines = max((len(caption.splitlines()) for caption in captions[columns:]), default=0)
    size = (1.75 * columns, (1.8 + 0.15 * lines) * rows + 0.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        axis.imshow(picture)
        axis.set_title("\n".join(map(_short, caption.splitlines())), size=7, pad=3)
    figure.suptitle(title, size=10)
    _save(figure, path)


def _short(text: str) -> str:
    """Replace the middle of a text that is too long by an ellipsis."""
    half = _MAX_LETTERS // 2
    return text if len(text) <= _MAX_LETTERS else f"{text[:half]}…{text[1 - half :]}"


def _save(figure: Figure, path: Path) -> None:
    # no date and no version in the file: equal figures are equal bytes
    metadata: dict[str, Any] = {"Software": None}
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata=metadata)
    plt.close(figure)
