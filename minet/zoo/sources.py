"""Which files of a tree a Python file loads: itself and all that it imports, directly or not."""

import ast
from functools import cache
from pathlib import Path


@cache
def imports(root: Path, file: Path) -> frozenset[Path]:
    """Give the files of the tree below `root` that a file imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            found |= {target for package in packages if (target := file_of(root, package))}
    return frozenset(found)


def file_of(root: Path, module: str) -> Path | None:
    """Give the file of a dotted module of the tree, relative to its root."""
    base = Path(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / file).is_file():
            return file
    return None


def closure(root: Path, file: Path) -> set[Path]:
    """Give all files of the tree that running a file loads, itself included."""
    seen: set[Path] = set()
    waiting = {file}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        waiting |= imports(root, current) - seen
    return seen
