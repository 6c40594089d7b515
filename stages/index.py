"""Check every listed image and write one CSV per split."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minet.core.cli import parse_paths, progress_bar, run, workers
from minet.core.files import write_csv, write_json
from minet.core.settings import read_settings
from minet.data.config import DataSettings
from minet.data.index import CheckedImage, Index, index_images
from minet.figures import gallery
from minet.images.decode import decode, prepare

_GALLERY_CLASSES, _GALLERY_ROWS, _GALLERY_PX = 10, 6, 112


def main() -> None:
    """Write the index, the skipped images, the counts and a gallery of examples."""
    args = parse_paths(__doc__, "settings", "out", "metrics", "picture")
    settings = read_settings(args.settings, DataSettings)
    index = index_images(settings, workers(), lambda items, n: progress_bar(items, n, "index"))
    for split, images in index.images.items():
        rows = [(image.entry.path, image.entry.label, image.digest) for image in images]
        write_csv(args.out / f"{split}.csv", ("path", "label", "xxh3"), rows)
    write_csv(args.out / "classes.csv", ("label", "name"), enumerate(index.classes))
    skipped = [(i.split, i.entry.path, i.problem, i.reason) for i in index.skipped]
    write_csv(args.out / "skipped.csv", ("split", "path", "problem", "reason"), skipped)
    write_json(args.metrics, index.counts())
    _draw_examples(index, Path(settings.root), args.picture)
    for split, images in index.images.items():
        print(f"{split}: {len(images)} images")
    if skipped:
        print(f"skipped {len(skipped)} images, listed in {args.out / 'skipped.csv'}")


def _draw_examples(index: Index, root: Path, path: Path) -> None:
    """Draw the first images of the first classes of train, one column per class."""
    classes = index.classes[:_GALLERY_CLASSES]
    by_class: list[list[CheckedImage]] = [[] for _ in index.classes]
    for image in index.images["train"]:
        by_class[image.entry.label].append(image)
    pictures, captions = [], []
    for row in range(_GALLERY_ROWS):
        for label, name in enumerate(classes):
            images = by_class[label][row : row + 1]  # empty if the class has fewer
            pictures.append(_thumbnail(root / images[0].entry.path) if images else _blank())
            captions.append(name if row == 0 else "")
    title = f"train: {len(classes)} of {len(index.classes)} classes, a column each"
    gallery(np.stack(pictures), captions, path, title=title, columns=len(classes))


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    return prepare(decode(path.read_bytes()), _GALLERY_PX, _GALLERY_PX)


def _blank() -> NDArray[np.uint8]:
    return np.full((_GALLERY_PX, _GALLERY_PX, 3), 255, np.uint8)


if __name__ == "__main__":
    run(main)
