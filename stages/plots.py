"""Draw the figures from the tables and records of the other stages."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from minet.core.cli import parse_paths, run
from minet.core.files import read_csv, read_json
from minet.figures import channel_bars, confusion, curves, gallery


def main() -> None:
    """Write one PNG a figure into the folder of plots."""
    args = parse_paths(
        __doc__, *("train", "history", "predictions", "classes", "channels", "mistakes", "out")
    )
    predictions = pd.read_csv(args.predictions)
    names = [row["name"] for row in read_csv(args.classes)]  # pandas would take "001" for 1
    best_epoch = read_json(args.train)["best_epoch"]
    curves(pd.read_csv(args.history), best_epoch, args.out / "curves.png")
    confusion(predictions, names, args.out / "confusion.png")
    channel_bars(read_json(args.channels), len(names), args.out / "channels.png")
    _draw_mistakes(args.mistakes, predictions, names, args.out / "mistakes.png")


def _draw_mistakes(path: Path, predictions: pd.DataFrame, names: list[str], out: Path) -> None:
    with np.load(path) as mistakes:
        places, pictures = mistakes["places"], mistakes["pictures"]
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    title = f"{len(places)} worst of {wrong} mistakes in {len(predictions)} test images"
    captions = list(_captions(predictions.iloc[places], names))
    gallery(pictures, captions, out, title=title, columns=6)


def _captions(rows: pd.DataFrame, names: list[str]) -> Iterator[str]:
    columns = (rows["label"], rows["predicted"], rows["probability"])
    for label, predicted, probability in zip(*columns, strict=True):
        yield f"{names[label]}\nas {names[predicted]}\n({probability:.2f})"


if __name__ == "__main__":
    run(main)
