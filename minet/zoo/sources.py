"""Files of a tree that a Python file loads: itself and all that it imports, also indirectly."""

import ast
from functools import cache
from pathlib import Path


@cache
def imports(root: Path, file: Path) -> frozenset[Path]:
    """Return the files below `root` that a file imports, inside functions too."""
    files: set[Path] = set()
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            files |= {target for package in packages if (target := file_of(root, package))}
    return frozenset(files)


def file_of(root: Path, module: str) -> Path | None:
    """Return the file of a dotted module relative to `root`, None if it is not in the tree."""
    base = Path(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / file).is_file():
            return file
    return None


def closure(root: Path, file: Path) -> set[Path]:
    """Return all files of the tree that running a file loads, itself included."""
    seen: set[Path] = set()
    waiting = {file}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        waiting |= imports(root, current) - seen
    return seen
