"""Write the synthetic data set: JPEGs, with lists in mini-ImageNet's format and as CSV tables."""

from functools import partial
from pathlib import Path

from minet.core.cli import parse_paths, progress_bar, run, workers
from minet.core.files import atomic_dir, write_csv
from minet.core.settings import read_settings
from minet.core.threads import ordered_map
from minet.data.config import SPLITS, SampleRunSettings, SampleSettings
from minet.data.sample import SampleImage, draw_jpeg, sample_images


def main() -> None:
    """Draw every image and write the folder, whole or not at all; empty where it is not used."""
    args = parse_paths(__doc__, "settings", "out")
    settings = read_settings(args.settings, SampleRunSettings)
    with atomic_dir(args.out) as folder:
        if settings.drawn:
            _draw_all(settings, folder)


def _draw_all(settings: SampleSettings, folder: Path) -> None:
    """Draw the images into a folder, with lists of each split."""
    images = list(sample_images(settings))
    for folder_name in {image.path.rpartition("/")[0] for image in images}:
        (folder / folder_name).mkdir(parents=True)
    drawn = ordered_map(partial(_draw, seed=settings.seed), images, workers())
    for image, data in progress_bar(drawn, len(images), "sample"):
        (folder / image.path).write_bytes(data)
    for split in SPLITS:
        rows = [(image.path, image.label) for image in images if image.split == split]
        lines = [f"{path} {label}\n" for path, label in rows]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
        write_csv(folder / f"{split}.csv", ("path", "label"), rows)


def _draw(image: SampleImage, seed: int) -> tuple[SampleImage, bytes]:
    return image, draw_jpeg(image, seed)


if __name__ == "__main__":
    run(main)
