"""Read the images of a split and their labels: list files, CSV tables, class folders."""

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
    """A listed image: its path below the root, its label, and the file and line that list it."""

    path: str
    label: int
    source: str


def parse_list(text: str, source: str) -> list[Entry]:
    """Parse lines of `relative/path label`, the format of mini-ImageNet.

    The label follows the last blank or tab; a path may contain blanks. Empty lines, Windows line
    ends and a byte-order mark are accepted. InputError lists all problems.
    """
    rows = []
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        fields = line.strip().rsplit(maxsplit=1)
        if fields:
            rows.append((f"{source}:{number}", fields[0], fields[1] if len(fields) > 1 else ""))
    return _entries(rows)


def parse_csv(text: str, source: str) -> list[Entry]:
    """Parse a CSV with the columns `path` and `label`; other columns are ignored.

    InputError lists all problems.
    """
    try:
        return _entries(list(_csv_rows(text.removeprefix("\ufeff"), source)))
    except csv.Error as error:
        raise InputError(f"{source}: not a CSV table: {error}") from error


def parse_folders(files: Iterable[str], classes: Sequence[str], folder: str) -> list[Entry]:
    """Label the files `<folder>/<class>/.../<name>` (paths below the root) by their class.

    Only files with a suffix in SUFFIXES count; hidden files and hidden folders do not. InputError
    lists all images of unknown classes.
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


def label_problems(splits: Mapping[str, Sequence[Entry]], max_named: int = 20) -> list[str]:
    """Return the problems of labels: they must be 0 to K-1, all in train, and no split empty.

    At most `max_named` missing classes are named: one label may be a huge number by mistake.
    """
    problems = [f"{split}: no images listed" for split in SPLITS if not splits[split]]
    labels = {split: {entry.label for entry in splits[split]} for split in SPLITS}
    highest = max((max(values, default=0) for values in labels.values()), default=0)
    gaps = (label for label in range(highest + 1) if label not in labels["train"])
    missing = [str(label) for label in islice(gaps, max_named + 1)]
    if missing and labels["train"]:
        shown = [*missing[:max_named], "..."] if len(missing) > max_named else missing
        problems.append(
            f"train: no image of class {', '.join(shown)}; labels must be 0 to K-1 "
            f"(the highest found is {highest}) and each class must be present in train"
        )
    return problems


def class_names(entries: Sequence[Entry]) -> list[str]:
    """Return the name of each class: the folder of its images, or `class <label>`.

    Folder names are used only if every class has one folder to itself.
    """
    folders: dict[int, set[str]] = {}
    for entry in entries:
        folders.setdefault(entry.label, set()).add(PurePosixPath(entry.path).parent.name)
    single = [next(iter(names)) for names in folders.values() if len(names) == 1]
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
            continue  # an empty row of a spreadsheet
        yield f"{source}:{reader.line_num}", _text(row["path"]), _text(row["label"])


def _text(cell: object) -> str:
    return cell.strip() if isinstance(cell, str) else ""


def _entries(rows: Iterable[tuple[str, str, str]]) -> list[Entry]:
    """Return the entries of rows (source, path, label); InputError lists all problems."""
    entries: list[Entry] = []
    problems: list[str] = []
    for source, path, label in rows:
        row_problems = _row_problems(path, label)
        problems.extend(f"{source}: {problem}" for problem in row_problems)
        if not row_problems:
            entries.append(Entry(str(PurePosixPath(path)), int(label), source))
    if problems:
        raise InputError(*problems)
    return entries


def _row_problems(path: str, label: str) -> list[str]:
    problems: list[str] = []
    if not label:
        problems.append(f"{path!r} has no label; a line is `relative/path label`")
    elif not re.fullmatch(r"[0-9]{1,9}", label):
        problems.append(f"label {label!r} is not a non-negative integer")
    parts = PurePosixPath(path).parts
    if not path:
        problems.append("no path")
    elif path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", path):
        problems.append(f"path {path!r} is absolute; paths are relative to data.root")
    elif ".." in parts:
        problems.append(f"path {path!r} leaves data.root; `..` is not allowed")
    elif "\0" in path:
        problems.append(f"path {path!r} contains a NUL byte")
    return problems
