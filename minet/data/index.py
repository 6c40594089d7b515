"""The index of a data set: every image found, read once, and known by its digest."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from minet.core.errors import InputError
from minet.core.files import digest
from minet.core.threads import ordered_map
from minet.data.config import SPLITS, DataSettings
from minet.data.lists import (
    Entry,
    class_names,
    label_problems,
    parse_csv,
    parse_folders,
    parse_list,
)
from minet.images.decode import decode

PROBLEMS = ("missing", "unreadable", "duplicate", "leaked")

Progress = Callable[[Iterable["CheckedImage"], int], Iterable["CheckedImage"]]


@dataclass(frozen=True)
class CheckedImage:
    """An entry after its file was read; `problem` is one of PROBLEMS or empty."""

    split: str
    entry: Entry
    digest: str = ""  # of the file's bytes, in hex
    problem: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Index:
    """What the index stage writes."""

    images: dict[str, list[CheckedImage]]  # split -> the usable images, in the order listed
    skipped: list[CheckedImage]
    classes: list[str]

    def counts(self) -> dict[str, object]:
        """Count classes, and per split the images listed, usable, and of each problem."""
        record: dict[str, object] = {"classes": len(self.classes)}
        for split, images in self.images.items():
            found = Counter(image.problem for image in self.skipped if image.split == split)
            problems = {problem: found[problem] for problem in PROBLEMS}
            listed = len(images) + found.total()
            record[split] = {"listed": listed, "images": len(images), **problems}
        return record


def index_images(settings: DataSettings, workers: int, progress: Progress) -> Index:
    """Read the lists of all splits and every image they name.

    InputError lists all problems of the lists, or else all of the images; with on_bad_image: skip
    the images' problems are counted instead. `progress` wraps the stream of images for a display.
    """
    root = Path(settings.root)
    if not root.is_dir():
        raise InputError(f"data.root: {root} is not a folder")
    splits, classes = _read_splits(root, settings)
    entries = [(split, entry) for split in SPLITS for entry in splits[split]]
    examined = ordered_map(lambda item: _examine(root, *item), entries, workers)
    found = list(_repeated(list(progress(examined, len(entries)))))
    skipped = [image for image in found if image.problem]
    if skipped and settings.on_bad_image == "error":
        raise InputError(*_report(skipped))
    images = {split: [i for i in found if i.split == split and not i.problem] for split in SPLITS}
    usable = {split: [image.entry for image in images[split]] for split in SPLITS}
    if left := label_problems(usable):
        raise InputError("without the images that cannot be used:", *left)
    names = classes or class_names([entry for split in SPLITS for entry in splits[split]])
    return Index(images, skipped, names)


def _read_splits(root: Path, settings: DataSettings) -> tuple[dict[str, list[Entry]], list[str]]:
    """Read the lists of all splits; class names too where the layout has them."""
    places = {split: str(getattr(settings, split)) for split in SPLITS}
    splits: dict[str, list[Entry]] = {}
    problems: list[str] = []
    classes: list[str] = []
    if settings.layout == "folders":
        train = root / places["train"]
        classes = sorted(path.name for path in train.glob("*/") if not path.name.startswith("."))
    for split, place in places.items():
        try:
            splits[split] = _read_split(root, place, settings.layout, classes)
        except InputError as error:
            problems.extend(error.problems)
    if not problems:
        found = {entry.label for entry in splits["train"]}
        empty = [name for label, name in enumerate(classes) if label not in found]
        problems = [f"{places['train']}/{name}: a class without images" for name in empty]
        problems = problems or label_problems(splits)
    if problems:
        raise InputError(*problems)
    return splits, classes


def _read_split(root: Path, place: str, layout: str, classes: list[str]) -> list[Entry]:
    path = root / place
    if layout == "folders":
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; layout folders has {place}/<class>/<image>")
        return parse_folders(_files(root, path), classes, place)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error
    return parse_list(text, place) if layout == "lists" else parse_csv(text, place)


def _files(root: Path, folder: Path) -> Iterator[str]:
    """Yield all files below `folder`, through links to folders too, as paths below `root`."""
    seen = set()  # a link that leads back up would be followed for ever
    for place, folders, names in os.walk(folder, followlinks=True):
        found = Path(place).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        for name in names:
            yield (Path(place) / name).relative_to(root).as_posix()


def _examine(root: Path, split: str, entry: Entry) -> CheckedImage:
    """Read a file once: its digest, and whether it decodes."""
    try:
        data = (root / entry.path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return CheckedImage(split, entry, problem="missing", reason="no such file")
    except OSError as error:
        return CheckedImage(split, entry, problem="unreadable", reason=str(error.strerror))
    try:
        decode(data, reduced=True)
    except InputError as error:
        return CheckedImage(split, entry, problem="unreadable", reason=str(error))
    return CheckedImage(split, entry, digest=digest(data).hex())


def _repeated(images: list[CheckedImage]) -> Iterator[CheckedImage]:
    """Mark images whose bytes stand twice: the later one of a split, the earlier of two splits.

    Of an image in two splits the one in test is kept before val before train, so that skipping a
    leak leaves the evaluation as it is published.
    """
    kept: dict[str, CheckedImage] = {}
    for image in sorted(images, key=lambda image: -SPLITS.index(image.split)):
        if image.digest:
            kept.setdefault(image.digest, image)
    for image in images:
        first = kept.get(image.digest, image)
        if first is image:
            yield image
        elif first.split == image.split:
            reason = f"same bytes as {first.entry.path} ({first.entry.source})"
            if first.entry.label != image.entry.label:
                reason += f", labelled {first.entry.label} there and {image.entry.label} here"
            yield CheckedImage(image.split, image.entry, image.digest, "duplicate", reason)
        else:
            reason = f"same bytes as {first.entry.path} in {first.split} ({first.entry.source})"
            yield CheckedImage(image.split, image.entry, image.digest, "leaked", reason)


def _report(images: list[CheckedImage], most: int = 100) -> list[str]:
    """Lines of problems by kind, at most `most` of each, and what to do about them."""
    lines = []
    by_kind: Mapping[str, list[CheckedImage]] = {
        problem: [image for image in images if image.problem == problem] for problem in PROBLEMS
    }
    for problem, found in by_kind.items():
        lines += [
            f"{image.split}: {image.entry.path} ({image.entry.source}): {problem}: {image.reason}"
            for image in found[:most]
        ]
        if len(found) > most:
            lines.append(f"... and {len(found) - most} more {problem}")
    totals = ", ".join(f"{len(found)} {problem}" for problem, found in by_kind.items() if found)
    return [*lines, f"{totals}; mend them, or leave them out with data.on_bad_image: skip"]
