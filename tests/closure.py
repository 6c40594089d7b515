"""Which files of this tree a module imports, itself and what it imports included."""

from pathlib import Path

from minet import sources

ROOT = Path(__file__).resolve().parent.parent


def imports(file: Path) -> frozenset[Path]:
    """Files of this tree that a file imports, anywhere in it."""
    return sources.imports(ROOT, file)


def closure(file: Path) -> set[Path]:
    """All files of this tree that running a file loads."""
    return sources.closure(ROOT, file)
