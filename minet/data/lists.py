"""Which images belong to a split, and their labels: list files, CSV tables, class folders."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from minet.core.errors import InputError
from minet.data.config import SPLITS

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Entry:
    """An image as it is listed: its path below the root, its label, and where that is said."""

    path: str
    label: int
    source: str


def parse_list(text: str, source: str) -> list[Entry]:
    """Read lines of `relative/path label`, as mini-ImageNet ships them.

    The label is what follows the last blank or tab; a path may hold blanks. Empty lines, Windows
    line ends and a byte-order mark are fine.
    """
    rows = []
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        fields = line.strip().rsplit(maxsplit=1)
        if fields:
            rows.append((f"{source}:{number}", fields[0], fields[1] if len(fields) > 1 else ""))
    return _entries(rows)


def parse_csv(text: str, source: str) -> list[Entry]:
    """Read a CSV whose header names the columns `path` and `label`; other columns are ignored."""
    try:
        return _entries(list(_csv_rows(text.removeprefix("\ufeff"), source)))
    except csv.Error as error:
        raise InputError(f"{source}: not a CSV table: {error}") from error


def parse_folders(files: Iterable[str], classes: Sequence[str], folder: str) -> list[Entry]:
    """Label the files `<folder>/<class>/.../<name>` (paths below the root) by their class.

    Only files of a known image suffix count; hidden ones and those in hidden folders do not.
    """
    labels = {name: label for label, name in enumerate(classes)}
    depth = len(PurePosixPath(folder).parts)
    entries: list[Entry] = []
    problems: list[str] = []
    for file in sorted(files):
        path = PurePosixPath(file)
        hidden = any(part.startswith(".") for part in path.parts[depth:])
        if path.suffix.lower() not in SUFFIXES or hidden:
            continue
        name = path.parts[depth]
        if name in labels and len(path.parts) > depth + 1:
            entries.append(Entry(file, labels[name], file))
        else:
            problems.append(f"{file}: not in one of the class folders of train: {list(classes)}")
    if problems:
        raise InputError(*problems)
    return entries


def label_problems(splits: Mapping[str, Sequence[Entry]], most: int = 20) -> list[str]:
    """Check labels over the splits: 0 to K-1, each class in train, no split empty.

    At most `most` absent classes are named: a label may be a number far beyond the classes.
    """
    problems = [f"{split}: no images listed" for split in SPLITS if not splits[split]]
    labels = {split: {entry.label for entry in splits[split]} for split in SPLITS}
    highest = max((max(found, default=0) for found in labels.values()), default=0)
    lacking = (label for label in range(highest + 1) if label not in labels["train"])
    absent = [str(label) for label in islice(lacking, most + 1)]
    if absent and labels["train"]:
        shown = [*absent[:most], "..."] if len(absent) > most else absent
        problems.append(
            f"train: no image of class {', '.join(shown)}; labels must be 0 to K-1 "
            f"(the highest found is {highest}) and each class must be present in train"
        )
    return problems


def class_names(entries: Sequence[Entry]) -> list[str]:
    """Name each class after the folder that its images lie in, or `class <label>`.

    A folder's name is taken only if it holds all images of that class and of no other.
    """
    folders: dict[int, set[str]] = {}
    for entry in entries:
        folders.setdefault(entry.label, set()).add(PurePosixPath(entry.path).parent.name)
    single = [next(iter(found)) for found in folders.values() if len(found) == 1]
    unique = len(single) == len(folders) == len(set(single)) and "" not in single
    return [next(iter(folders[k])) if unique else f"class {k}" for k in sorted(folders)]


def _csv_rows(text: str, source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (source, path, label) of each row of a CSV."""
    reader = csv.DictReader(io.StringIO(text))
    columns = [(name or "").strip() for name in reader.fieldnames or []]
    if not {"path", "label"} <= set(columns):
        raise InputError(f"{source}: the header has {columns}; it must name `path` and `label`")
    reader.fieldnames = columns
    for row in reader:
        if not any(map(_text, row.values())):
            continue  # what a spreadsheet writes for an empty row
        place = f"{source}:{reader.line_num}"
        yield place, _text(row["path"]), _text(row["label"])


def _text(cell: object) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _entries(rows: Iterable[tuple[str, str, str]]) -> list[Entry]:
    """Check rows of (source, path, label) and report all that is wrong with them at once."""
    entries: list[Entry] = []
    problems: list[str] = []
    for source, path, label in rows:
        found = _row_problems(path, label)
        if found:
            problems.extend(f"{source}: {problem}" for problem in found)
        else:
            entries.append(Entry(str(PurePosixPath(path)), int(label), source))
    if problems:
        raise InputError(*problems)
    return entries


def _row_problems(path: str, label: str) -> list[str]:
    problems: list[str] = []
    if not label:
        problems.append(f"{path!r} has no label; a line is `relative/path label`")
    elif not re.fullmatch(r"[0-9]{1,9}", label):
        problems.append(f"label {label!r} is not a whole number from 0")
    parts = PurePosixPath(path).parts
    if not path:
        problems.append("no path")
    elif path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", path):
        problems.append(f"path {path!r} is absolute; paths are relative to data.root")
    elif ".." in parts:
        problems.append(f"path {path!r} leaves data.root; `..` is not allowed")
    elif "\0" in path:
        problems.append(f"path {path!r} holds a zero byte")
    return problems
