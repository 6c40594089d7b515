"""Which files of this tree a module imports, itself and what it imports included."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def file_of(module: str) -> Path | None:
    """File of a dotted module of this tree, relative to its root."""
    base = Path(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / file).is_file():
            return file
    return None


@cache
def imports(file: Path) -> frozenset[Path]:
    """Files of this tree that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            found |= {target for package in packages if (target := file_of(package))}
    return frozenset(found)


def closure(file: Path) -> set[Path]:
    """All files of this tree that running a file loads."""
    seen: set[Path] = set()
    waiting = {file}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        waiting |= imports(current) - seen
    return seen
