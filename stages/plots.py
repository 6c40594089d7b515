"""Draw the figures from the tables and metrics of the other stages."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from minet.core.cli import parse_paths, run
from minet.core.files import read_csv, read_json
from minet.figures import channel_bars, confusion, curves, gallery

_PATHS = ("train", "history", "predictions", "classes", "channels", "mistakes", "out")


def main() -> None:
    """Write each figure as a PNG into the folder of plots."""
    args = parse_paths(__doc__, *_PATHS)
    predictions = pd.read_csv(args.predictions)
    names = [row["name"] for row in read_csv(args.classes)]  # pandas would read "001" as 1
    best_epoch = read_json(args.train)["best_epoch"]
    curves(pd.read_csv(args.history), best_epoch, args.out / "curves.png")
    confusion(predictions, names, args.out / "confusion.png")
    with np.load(args.mistakes) as mistakes:
        indices, pictures = mistakes["indices"], mistakes["pictures"]
        channel_mode = str(mistakes["channel_mode"])
    channels = read_json(args.channels)
    channel_bars(channels, len(names), args.out / "channels.png", channel_mode=channel_mode)
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    title = f"{len(indices)} worst of {wrong} mistakes in {len(predictions)} test images"
    captions = list(_captions(predictions.iloc[indices], names))
    gallery(pictures, captions, args.out / "mistakes.png", title=title, columns=6)


def _captions(rows: pd.DataFrame, names: list[str]) -> Iterator[str]:
    """Yield the true class, the predicted class and its probability of each image."""
    columns = (rows["label"], rows["predicted"], rows["probability"])
    for label, predicted, probability in zip(*columns, strict=True):
        yield f"{names[label]}\nas {names[predicted]}\n({probability:.2f})"


if __name__ == "__main__":
    run(main)
