"""The index of small real files: usable images, reported problems, skipped images."""

import io
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minet.core.errors import InputError
from minet.core.files import digest, read_csv, read_json, write_json
from minet.data.config import SPLITS, DataSettings
from minet.data.index import CheckedImage, Index, index_images


def jpeg(seed: int) -> bytes:
    """Encode an image of fine texture, a different one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def settings(root: Path, **changes: str) -> DataSettings:
    lists = {split: f"{split}.txt" for split in SPLITS}
    values = {"root": str(root), "layout": "lists", **lists, "on_bad_image": "error"}
    return DataSettings(**(values | changes))


def plain(items: Iterable[CheckedImage], total: int) -> Iterable[CheckedImage]:
    return items


def index_of(root: Path, **changes: str) -> Index:
    return index_images(settings(root, **changes), 2, plain)


def paths(index: Index) -> dict[str, list[str]]:
    return {split: [image.entry.path for image in index.images[split]] for split in SPLITS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of two classes with three, two and two good images and their lists."""
    root = tmp_path / "images"
    for start, (split, labels) in zip((0, 10, 20), LABELS.items(), strict=True):
        lines = []
        for number, label in enumerate(labels):
            path = f"{CLASSES[label]}/{split} {number}.jpg"
            put(root / path, jpeg(start + number))
            lines.append(f"{path} {label}\n")
        put(root / f"{split}.txt", "".join(lines))
    return root


CLASSES = ("cat", "dog")
LABELS = {"train": (0, 1, 1), "val": (0, 1), "test": (0, 1)}


def add(root: Path, split: str, path: str, label: int, content: bytes | str | None) -> None:
    """Append an image to a list; without content the file is missing."""
    if content is not None:
        put(root / path, content)
    with (root / f"{split}.txt").open("a") as file:
        file.write(f"{path} {label}\n")


def test_good_images_are_listed_in_order_with_their_digests(data: Path) -> None:
    index = index_of(data)
    assert paths(index)["train"] == ["cat/train 0.jpg", "dog/train 1.jpg", "dog/train 2.jpg"]
    for split in SPLITS:
        for image, label in zip(index.images[split], LABELS[split], strict=True):
            content = (data / image.entry.path).read_bytes()
            assert image.digest == digest(content).hex()
            assert image.entry.label == label
    assert index.classes == ["cat", "dog"]
    assert index.skipped == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(data: Path, workers: int) -> None:
    add(data, "train", "cat/more.jpg", 0, jpeg(0))
    choice = settings(data, on_bad_image="skip")
    assert index_images(choice, workers, plain) == index_images(choice, 2, plain)


def add_problems(root: Path) -> None:
    """Add images with all kinds of problems; line numbers continue those of `data`."""
    add(root, "train", "cat/gone.jpg", 0, None)  # line 4
    add(root, "train", "cat/cut.jpg", 0, jpeg(50)[:-200])
    add(root, "train", "cat/text.jpg", 0, "no image at all")
    add(root, "train", "cat/empty.jpg", 0, b"")
    add(root, "train", "cat/again.jpg", 0, jpeg(0))
    add(root, "train", "cat/leak 1.jpg", 0, jpeg(10))  # val has it
    add(root, "val", "cat/leak 2.jpg", 0, jpeg(20))  # test has it
    (root / "cat/folder.jpg").mkdir()
    add(root, "test", "cat/folder.jpg", 0, None)


PROBLEMS = (
    "train: cat/gone.jpg (train.txt:4): missing: no such file",
    "test: cat/folder.jpg (test.txt:3): missing: no such file",
    "train: cat/cut.jpg (train.txt:5): unreadable: damaged: image file is truncated",
    "train: cat/text.jpg (train.txt:6): unreadable: not an image of a known format",
    "train: cat/empty.jpg (train.txt:7): unreadable: not an image of a known format",
    "train: cat/again.jpg (train.txt:8): duplicate: same bytes as cat/train 0.jpg (train.txt:1)",
    "train: cat/leak 1.jpg (train.txt:9): leaked: same bytes as cat/val 0.jpg in val (val.txt:1)",
    "val: cat/leak 2.jpg (val.txt:3): leaked: same bytes as cat/test 0.jpg in test (test.txt:1)",
    "2 missing, 3 unreadable, 1 duplicate, 2 leaked; fix them, or skip them with data.on_",
)


def test_all_problems_of_images_are_reported_together(data: Path) -> None:
    add_problems(data)
    with pytest.raises(InputError) as caught:
        index_of(data)
    problems = caught.value.problems
    assert len(problems) == len(PROBLEMS)
    for line, beginning in zip(problems, PROBLEMS, strict=True):
        assert line.startswith(beginning)


def test_at_most_100_problems_of_each_kind_are_reported(data: Path) -> None:
    for number in range(150):
        add(data, "val", f"cat/gone {number}.jpg", 0, None)
    add(data, "val", "cat/empty.jpg", 0, b"")
    with pytest.raises(InputError) as caught:
        index_of(data)
    problems = caught.value.problems
    assert len(problems) == 100 + 1 + 1 + 1
    assert problems[100] == "... and 50 more missing"
    assert "cat/empty.jpg" in problems[101]
    assert problems[-1].startswith("150 missing, 1 unreadable; ")


def test_skipping_leaves_out_counts_and_names_unusable_images(data: Path) -> None:
    clean = paths(index_of(data))
    add_problems(data)
    index = index_of(data, on_bad_image="skip")
    assert paths(index) == clean
    skipped = [(image.split, image.entry.path, image.problem) for image in index.skipped]
    assert skipped == [
        ("train", "cat/gone.jpg", "missing"),
        ("train", "cat/cut.jpg", "unreadable"),
        ("train", "cat/text.jpg", "unreadable"),
        ("train", "cat/empty.jpg", "unreadable"),
        ("train", "cat/again.jpg", "duplicate"),
        ("train", "cat/leak 1.jpg", "leaked"),
        ("val", "cat/leak 2.jpg", "leaked"),
        ("test", "cat/folder.jpg", "missing"),
    ]
    no_problems = {"missing": 0, "unreadable": 0, "duplicate": 0, "leaked": 0}
    assert index.counts() == {
        "classes": 2,
        "train": {"listed": 9, "images": 3} | no_problems
        | {"missing": 1, "unreadable": 3, "duplicate": 1, "leaked": 1},
        "val": {"listed": 3, "images": 2} | no_problems | {"leaked": 1},
        "test": {"listed": 3, "images": 2} | no_problems | {"missing": 1},
    }  # fmt: skip


def test_of_an_image_in_all_splits_only_test_keeps_it(data: Path) -> None:
    """The published evaluation does not change, whatever train and val copied of it."""
    for split in ("train", "val"):
        add(data, split, f"cat/{split} copy.jpg", 0, jpeg(20))
        add(data, split, f"cat/{split} copy 2.jpg", 0, jpeg(20))
    index = index_of(data, on_bad_image="skip")
    assert paths(index)["test"] == ["cat/test 0.jpg", "dog/test 1.jpg"]
    assert [(image.split, image.problem) for image in index.skipped] == [
        ("train", "leaked"),
        ("train", "leaked"),
        ("val", "leaked"),
        ("val", "leaked"),
    ]


def test_a_class_lost_by_skipping_is_an_error(data: Path) -> None:
    put(data / "cat/train 0.jpg", "damaged")
    with pytest.raises(InputError, match="^after skipping unusable images:") as caught:
        index_of(data, on_bad_image="skip")
    assert caught.value.problems[1].startswith("train: no image of class 0; labels must be 0 to K")


def test_a_split_lost_by_skipping_is_an_error(data: Path) -> None:
    for label, name in enumerate(CLASSES):
        put(data / f"{name}/val {label}.jpg", "damaged")
    with pytest.raises(InputError, match="val: no images listed"):
        index_of(data, on_bad_image="skip")


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_root_that_is_no_folder_is_named(kind: str, tmp_path: Path) -> None:
    if kind == "a file":
        (tmp_path / "images").touch()
    with pytest.raises(InputError, match=r"^data.root: .*/images is not a folder$"):
        index_of(tmp_path / "images")


def test_problems_of_all_lists_are_reported_together(data: Path) -> None:
    (data / "train.txt").unlink()
    put(data / "val.txt", "../a.jpg 0\nb.jpg cat\n")
    put(data / "test.txt", b"\xe9t\xe9.jpg 0\n")  # Latin-1
    with pytest.raises(InputError) as caught:
        index_of(data)
    assert len(caught.value.problems) == 4
    for line, text in zip(
        caught.value.problems,
        (
            "train.txt: cannot be read: No such file",
            "val.txt:1: path '../a.jpg' leaves",
            "val.txt:2: label 'cat' is not",
            "test.txt: not UTF-8 text: ",
        ),
        strict=True,
    ):
        assert text in line


def test_labels_are_checked_before_any_image_is_read(data: Path) -> None:
    add(data, "val", "cow/1.jpg", 5, None)
    with pytest.raises(InputError, match="no image of class 2, 3, 4, 5; .* highest found is 5"):
        index_of(data)


def test_csv_tables_with_a_byte_order_mark_give_the_same_index(data: Path) -> None:
    expected = paths(index_of(data))
    for split in SPLITS:
        lines = (data / f"{split}.txt").read_text().splitlines()
        rows = [f"x,{line[:-2]},{line[-1]}\r\n" for line in lines]
        put(data / f"{split}.csv", "\ufeffnote,path,label\r\n" + "".join(rows))
    tables = {split: f"{split}.csv" for split in SPLITS}
    assert paths(index_of(data, layout="csv", **tables)) == expected


# --- class folders ---------------------------------------------------------------------------

FOLDERS = {"layout": "folders", **{split: split for split in SPLITS}}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder with one image of each of two classes in each split."""
    root = tmp_path / "folders"
    for seed, split in enumerate(SPLITS):
        for label, name in enumerate(CLASSES):
            put(root / split / name / "1.jpg", jpeg(10 * seed + label))
    return root


def test_class_folders_are_labelled_by_name(folders: Path) -> None:
    put(folders / "train/dog/deeper/2.JPG", jpeg(50))
    put(folders / "train/cat/.hidden.jpg", "not read")
    put(folders / "train/.cache/1.jpg", "not read")
    put(folders / "train/cat/notes.txt", "not read")
    index = index_of(folders, **FOLDERS)
    labelled = [(image.entry.path, image.entry.label) for image in index.images["train"]]
    assert labelled == [
        ("train/cat/1.jpg", 0),
        ("train/dog/1.jpg", 1),
        ("train/dog/deeper/2.JPG", 1),
    ]
    assert index.skipped == []


def test_a_class_that_only_val_has_is_an_error(folders: Path) -> None:
    put(folders / "val/cow/1.jpg", jpeg(50))
    with pytest.raises(InputError, match=r"^val/cow/1.jpg: not in one of the class folders of tr"):
        index_of(folders, **FOLDERS)


def test_class_folders_may_be_links(folders: Path, tmp_path: Path) -> None:
    """Otherwise a class on another disk would silently disappear."""
    for split in SPLITS:
        away = tmp_path / "away" / split
        away.parent.mkdir(exist_ok=True)
        (folders / split / "dog").rename(away)
        (folders / split / "dog").symlink_to(away)
    index = index_of(folders, **FOLDERS)
    assert index.classes == ["cat", "dog"]
    assert paths(index)["test"] == ["test/cat/1.jpg", "test/dog/1.jpg"]


def test_a_missing_split_folder_is_named_with_the_layout(folders: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; layout folders has v/<class>/<image>"):
        index_of(folders, **(FOLDERS | {"val": "v"}))


def test_the_same_image_with_two_labels_is_reported_with_both(folders: Path) -> None:
    first, second = sorted((folders / "train").iterdir())[:2]
    image = next(first.iterdir())
    (second / "again.jpg").write_bytes(image.read_bytes())
    with pytest.raises(InputError, match=r"duplicate: same bytes as .*, labelled 0 there and 1 he"):
        index_of(folders, **FOLDERS)


def test_a_link_to_a_parent_folder_is_no_endless_loop(folders: Path) -> None:
    before = index_of(folders, **FOLDERS)
    first = next((folders / "train").iterdir())
    (first / "loop").symlink_to(folders / "train")
    after = index_of(folders, **FOLDERS)
    assert after.counts() == before.counts()


def test_a_class_folder_without_images_is_named(folders: Path) -> None:
    """Even the last one, without which the labels look complete."""
    (folders / "train" / "zebra").mkdir()
    with pytest.raises(InputError, match=r"^train/zebra: a class without images$"):
        index_of(folders, **FOLDERS)


# --- the command -----------------------------------------------------------------------------


def run_stage(root: Path, choice: DataSettings, folder: Path) -> subprocess.CompletedProcess[str]:
    write_json(folder / "settings.json", choice.model_dump())
    arguments = ("settings", "settings.json"), ("out", "index"), ("metrics", "data.json")
    named = [f"--{name}={folder / file}" for name, file in (*arguments, ("picture", "all.png"))]
    return subprocess.run(
        [sys.executable, "-m", "stages.index", *named],
        cwd=root,
        env=os.environ | {"MINET_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_writes_only_a_message_on_bad_input(
    root: Path, data: Path, tmp_path: Path
) -> None:
    add_problems(data)
    out = tmp_path / "out"
    done = run_stage(root, settings(data), out)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for line in PROBLEMS:
        assert line in done.stderr
    assert len(done.stderr.splitlines()) <= len(PROBLEMS) + 1
    assert [path.name for path in out.rglob("*")] == ["settings.json"]


def test_the_command_writes_tables_counts_and_a_gallery(
    root: Path, data: Path, tmp_path: Path
) -> None:
    add_problems(data)
    out = tmp_path / "out"
    done = run_stage(root, settings(data, on_bad_image="skip"), out)
    assert done.returncode == 0, done.stderr
    index = index_of(data, on_bad_image="skip")
    for split in SPLITS:
        assert read_csv(out / f"index/{split}.csv") == [
            {"path": image.entry.path, "label": str(image.entry.label), "xxh3": image.digest}
            for image in index.images[split]
        ]
    classes = [(row["label"], row["name"]) for row in read_csv(out / "index/classes.csv")]
    assert classes == [("0", "cat"), ("1", "dog")]
    skipped = [tuple(row.values()) for row in read_csv(out / "index/skipped.csv")]
    assert skipped == [
        (image.split, image.entry.path, image.problem, image.reason) for image in index.skipped
    ]
    assert read_json(out / "data.json") == index.counts()
    with Image.open(out / "all.png") as picture:
        assert picture.width > 100
    assert "skipped 8 images" in done.stdout
    assert not list(out.rglob("*.partial"))
