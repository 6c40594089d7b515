"""The synthetic data set: the same on every machine, with the intended difficulty."""

import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minet.core.files import read_csv, write_json
from minet.core.rng import RngStream, generator
from minet.data.config import SPLITS, SampleSettings
from minet.data.lists import label_problems, parse_list
from minet.data.sample import CLASSES, draw, draw_jpeg, sample_images

SETTINGS = {"classes": 4, "train": 9, "val": 5, "test": 4, "seed": 3}


def run_stage(
    root: Path, out: Path, workers: int, **changes: int
) -> subprocess.CompletedProcess[str]:
    settings = out.with_name(f"{out.name}.settings.json")
    write_json(settings, SETTINGS | changes)
    return subprocess.run(
        [sys.executable, "-m", "stages.sample", "--settings", str(settings), "--out", str(out)],
        cwd=root,
        env=os.environ | {"MINET_WORKERS": str(workers)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small data set, drawn by the stage with one thread."""
    out = tmp_path_factory.mktemp("sample") / "data"
    done = run_stage(root, out, workers=1)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_the_number_of_threads(
    sample: Path, workers: int, root: Path, tmp_path: Path
) -> None:
    done = run_stage(root, tmp_path / "again", workers)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(sample)


def test_another_seed_draws_other_images(sample: Path, root: Path, tmp_path: Path) -> None:
    assert run_stage(root, tmp_path / "other", workers=2, seed=4).returncode == 0
    ours, other = contents(sample), contents(tmp_path / "other")
    assert ours.keys() == other.keys()
    same = {name for name in ours if ours[name] == other[name]}
    assert same == {f"{split}.{kind}" for split in SPLITS for kind in ("txt", "csv")}
    assert len(set(ours.values())) == len(ours)


def test_the_lists_name_every_image_once_with_its_class(sample: Path) -> None:
    splits = {split: parse_list((sample / f"{split}.txt").read_text(), split) for split in SPLITS}
    assert label_problems(splits) == []
    listed = [entry for split in SPLITS for entry in splits[split]]
    images = [name for name in contents(sample) if not name.endswith((".txt", ".csv"))]
    assert sorted(entry.path for entry in listed) == sorted(images)
    for entry in listed:
        assert Path(entry.path).parent.name == "-".join(CLASSES[entry.label])
    assert [len(splits[split]) for split in SPLITS] == [9, 5, 4]


def test_the_lists_have_the_format_of_mini_imagenet(sample: Path) -> None:
    assert (sample / "test.txt").read_bytes() == (
        b"images/red-striped-disc/test_00000.JPEG 0\n"
        b"images/yellow-striped-disc/test_00001.JPEG 1\n"
        b"images/red-dotted-square/test_00002.JPEG 2\n"
        b"images/magenta-dotted-square/test_00003.JPEG 3\n"
    )


def test_the_tables_equal_the_lists(sample: Path) -> None:
    assert (sample / "test.csv").read_bytes().startswith(b"path,label\n")
    for split in SPLITS:
        listed = parse_list((sample / f"{split}.txt").read_text(), split)
        rows = [(row["path"], int(row["label"])) for row in read_csv(sample / f"{split}.csv")]
        assert rows == [(entry.path, entry.label) for entry in listed]


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
@pytest.mark.parametrize("count", [10, 11, 37])
def test_every_class_is_equally_frequent_in_every_split(classes: int, count: int) -> None:
    settings = SampleSettings(classes=classes, train=count, val=count, test=classes, seed=0)
    images = list(sample_images(settings))
    for split in SPLITS:
        counts = Counter(image.label for image in images if image.split == split)
        assert sorted(counts) == list(range(classes))
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    ("label", "shape", "digest"),
    [
        (0, (333, 500), "921838f4db49c2f8e11fc57e5a5329481e4d340d41ce8c7800167b8ef91e984c"),
        (3, (480, 640), "f98f9650f8be650fcd1aa7f1f85f779bc8e1ae1ccf602beb8976f689450858db"),
        (5, (375, 500), "e71bc107adb2897fbafa09b820c61dddb0ecd878d3404a0bf822ec829e04d07a"),
        (7, (500, 375), "12ee48aa102014e2ba2e39352f6f07d54566923a73cc7ef8d41d8717a49085bf"),
    ],
)
def test_drawn_pixels_are_pinned(label: int, shape: tuple[int, int], digest: str) -> None:
    """Pixels, not JPEGs: integers are the same everywhere, Pillow's encoder is not."""
    pixels = draw(label, generator(0, RngStream.SAMPLE, 0, label))
    assert pixels.shape == (*shape, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("pair", "channel"), [((0, 1), 1), ((2, 3), 2), ((4, 5), 0), ((6, 7), 2), ((8, 9), 1)]
)
def test_the_classes_of_a_pair_differ_in_one_channel_only(
    pair: tuple[int, int], channel: int
) -> None:
    """With the same draws all else is equal: without the channel a classifier must guess."""
    for number in range(3):
        one, other = (draw(label, generator(0, RngStream.SAMPLE, 0, number)) for label in pair)
        differs = [bool((one[..., k] != other[..., k]).any()) for k in range(3)]
        assert differs == [k == channel for k in range(3)]
        assert (one[..., channel] != other[..., channel]).mean() > 0.03


def test_a_few_images_are_greyscale_and_sizes_are_mixed() -> None:
    settings = SampleSettings(classes=10, train=250, val=10, test=10, seed=0)
    images = [image for image in sample_images(settings) if image.split == "train"]
    opened = [Image.open(io.BytesIO(draw_jpeg(image, seed=0))) for image in images]
    modes = Counter(image.mode for image in opened)
    assert modes.keys() == {"RGB", "L"}
    assert 1 <= modes["L"] <= 15
    assert {(500, 375), (375, 500), (640, 480)} <= {image.size for image in opened}


def test_an_image_does_not_depend_on_the_number_of_others() -> None:
    """Settings that differ in the size of train give the same test images."""
    drawn = []
    for train in (10, 20):
        settings = SampleSettings(classes=10, train=train, val=10, test=10, seed=0)
        (last,) = [
            image for image in sample_images(settings) if image.path.endswith("st_00009.JPEG")
        ]
        drawn.append(draw_jpeg(last, seed=0))
    assert drawn[0] == drawn[1]
    assert not np.array_equal(
        *(draw(0, generator(0, RngStream.SAMPLE, split, 0)) for split in (0, 2))
    )


def test_invalid_settings_leave_no_folder(root: Path, tmp_path: Path) -> None:
    done = run_stage(root, tmp_path / "data", workers=1, val=3)
    assert done.returncode == 1
    assert "val is 3; must be at least one image per class, 4" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.settings.json"]
