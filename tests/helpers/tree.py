"""The tree under test: its root, and which of its files a module imports."""

from pathlib import Path

from minet.zoo import sources

ROOT = Path(__file__).resolve().parents[2]


def imports(file: Path) -> frozenset[Path]:
    """Files of this tree that a file imports, anywhere in it."""
    return sources.imports(ROOT, file)


def closure(file: Path) -> set[Path]:
    """All files of this tree that running a file loads."""
    return sources.closure(ROOT, file)
