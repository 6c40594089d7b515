"""Index a data set: read every listed image once, check it, and record its digest."""

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
    """An entry whose file was read; `problem` is one of PROBLEMS or empty."""

    split: str
    entry: Entry
    digest: str = ""  # of the file's bytes, in hex
    problem: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Index:
    """The usable images of all splits, the skipped ones, and the class names."""

    images: dict[str, list[CheckedImage]]  # split -> usable images, in the order of the list
    skipped: list[CheckedImage]
    classes: list[str]

    def counts(self) -> dict[str, object]:
        """Return the number of classes, and per split of listed and usable images and problems."""
        record: dict[str, object] = {"classes": len(self.classes)}
        for split, images in self.images.items():
            skipped = Counter(image.problem for image in self.skipped if image.split == split)
            problems = {problem: skipped[problem] for problem in PROBLEMS}
            listed = len(images) + skipped.total()
            record[split] = {"listed": listed, "images": len(images), **problems}
        return record


def index_images(settings: DataSettings, workers: int, progress: Progress) -> Index:
    """Read the lists of all splits and every image in them.

    InputError reports all problems of the lists, or else all of the images, which
    on_bad_image: skip counts instead. `progress` wraps the stream of images for a display.
    """
    root = Path(settings.root)
    if not root.is_dir():
        raise InputError(f"data.root: {root} is not a folder")
    splits, classes = _read_splits(root, settings)
    entries = [(split, entry) for split in SPLITS for entry in splits[split]]
    checked = ordered_map(lambda item: _check(root, *item), entries, workers)
    all_images = list(_mark_duplicates(list(progress(checked, len(entries)))))
    skipped = [image for image in all_images if image.problem]
    if skipped and settings.on_bad_image == "error":
        raise InputError(*_report(skipped))
    images = {
        split: [image for image in all_images if image.split == split and not image.problem]
        for split in SPLITS
    }
    usable = {split: [image.entry for image in images[split]] for split in SPLITS}
    if problems := label_problems(usable):
        raise InputError("after skipping unusable images:", *problems)
    names = classes or class_names([entry for split in SPLITS for entry in splits[split]])
    return Index(images, skipped, names)


def _read_splits(root: Path, settings: DataSettings) -> tuple[dict[str, list[Entry]], list[str]]:
    """Read the lists of all splits, and the class names if the layout is folders."""
    paths = {split: str(getattr(settings, split)) for split in SPLITS}
    splits: dict[str, list[Entry]] = {}
    problems: list[str] = []
    classes: list[str] = []
    if settings.layout == "folders":
        train = root / paths["train"]
        classes = sorted(path.name for path in train.glob("*/") if not path.name.startswith("."))
    for split, name in paths.items():
        try:
            splits[split] = _read_split(root, name, settings.layout, classes)
        except InputError as error:
            problems.extend(error.problems)
    if not problems:
        labels = {entry.label for entry in splits["train"]}
        empty = [name for label, name in enumerate(classes) if label not in labels]
        problems = [f"{paths['train']}/{name}: a class without images" for name in empty]
        problems = problems or label_problems(splits)
    if problems:
        raise InputError(*problems)
    return splits, classes


def _read_split(root: Path, name: str, layout: str, classes: list[str]) -> list[Entry]:
    path = root / name
    if layout == "folders":
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; layout folders has {name}/<class>/<image>")
        return parse_folders(_walk(root, path), classes, name)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error
    return parse_list(text, name) if layout == "lists" else parse_csv(text, name)


def _walk(root: Path, folder: Path) -> Iterator[str]:
    """Yield all files below `folder`, as paths below `root`; symbolic links are followed."""
    seen = set()  # a link to a parent folder would be an endless loop
    for current, folders, files in os.walk(folder, followlinks=True):
        status = Path(current).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for file in files:
            yield (Path(current) / file).relative_to(root).as_posix()


def _check(root: Path, split: str, entry: Entry) -> CheckedImage:
    """Read a file, compute its digest and decode it."""
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


def _mark_duplicates(images: list[CheckedImage]) -> Iterator[CheckedImage]:
    """Mark images with the same bytes: the later one in a split, the earlier of two splits.

    Of an image in several splits test keeps it, else val, so that skipping a leak does not change
    the published evaluation.
    """
    originals: dict[str, CheckedImage] = {}  # digest -> the image that is kept
    for image in sorted(images, key=lambda image: -SPLITS.index(image.split)):
        if image.digest:
            originals.setdefault(image.digest, image)
    for image in images:
        original = originals.get(image.digest, image)
        if original is image:
            yield image
        elif original.split == image.split:
            reason = f"same bytes as {original.entry.path} ({original.entry.source})"
            if original.entry.label != image.entry.label:
                reason += f", labelled {original.entry.label} there and {image.entry.label} here"
            yield CheckedImage(image.split, image.entry, image.digest, "duplicate", reason)
        else:
            reason = (
                f"same bytes as {original.entry.path} in {original.split} ({original.entry.source})"
            )
            yield CheckedImage(image.split, image.entry, image.digest, "leaked", reason)


def _report(images: list[CheckedImage], max_lines: int = 100) -> list[str]:
    """Return a line per problem, at most `max_lines` of each kind, and what to do about them."""
    lines = []
    by_problem: Mapping[str, list[CheckedImage]] = {
        problem: [image for image in images if image.problem == problem] for problem in PROBLEMS
    }
    for problem, affected in by_problem.items():
        lines += [
            f"{image.split}: {image.entry.path} ({image.entry.source}): {problem}: {image.reason}"
            for image in affected[:max_lines]
        ]
        if len(affected) > max_lines:
            lines.append(f"... and {len(affected) - max_lines} more {problem}")
    totals = ", ".join(
        f"{len(affected)} {problem}" for problem, affected in by_problem.items() if affected
    )
    return [*lines, f"{totals}; fix them, or skip them with data.on_bad_image: skip"]
