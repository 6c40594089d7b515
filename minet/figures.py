"""Figures: one function each, from tables to a PNG; the only module that imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from minet.core.arrays import Pixels, ceil_div
from minet.core.files import atomic_write

mpl.rcParams["text.parse_math"] = False  # "$5 to $10" is a class name, not a formula

_MAX_LETTERS = 28  # of a class name or a line of a caption: longer ones would overlap
_CHANNEL_COLOURS = {"R": "#c23b22", "G": "#3a8a3a", "B": "#2f5fb3"}
# what happens to the channels outside a set, by channel mode (`minet.augment.channels`)
_OTHER_CHANNELS = {
    "zero": "others set to 0",
    "slice": "others left out",
    "sigmoid": "sigmoid of their bytes, others left out",
}


def curves(history: pd.DataFrame, best_epoch: int, path: Path) -> None:
    """Plot loss and accuracy of training and validation by epoch, the best epoch marked."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "--"), ("val", "-")):
            axis.plot(history["epoch"], history[f"{split}_{name}"], style, marker=".", label=split)
        axis.set(xlabel="epoch", ylabel="cross-entropy (nats)" if name == "loss" else name)
        axis.axvline(best_epoch, color="grey", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[1].set_ylim(0, 1)
    axes[0].legend(title="dotted: best epoch", title_fontsize="small")
    _save(figure, path)


def confusion(predictions: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Plot the confusion matrix, normalized over the true class: its rows sum to 1."""
    classes = range(len(names))
    counts = pd.crosstab(predictions["label"], predictions["predicted"])
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    fractions = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    side = max(5.0, 0.32 * len(names) + 2.5)
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(fractions, vmin=0, vmax=1, cmap="Blues")
    shown = [_short(name) for name in names]
    axis.set_xticks(classes, shown, rotation=90)
    axis.set_yticks(classes, shown)
    axis.set(xlabel="predicted", ylabel="true")
    if len(names) <= 20:
        for row, column in zip(*np.nonzero(fractions.to_numpy()), strict=True):
            fraction = fractions.to_numpy()[row, column]
            colour = "white" if fraction > 0.5 else "black"
            text = f"{fraction:.2f}"
            axis.text(column, row, text, ha="center", va="center", color=colour, size=8)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    _save(figure, path)


def channel_bars(
    channels: Mapping[str, Mapping[str, float]], num_classes: int, path: Path, *, channel_mode: str
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
    axis.set(ylim=(0, 1.1), ylabel="test accuracy", xlabel=label)
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
