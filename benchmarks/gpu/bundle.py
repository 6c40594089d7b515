"""Put all that a GPU's machine lacks into one folder: python -m benchmarks.gpu.bundle FOLDER.

Wheels for Python 3.12 on x86-64, the code, photographs. `make gpu-bundle` runs this; it needs a
network, pip and git. All versions are those of requirements.lock, but for timm's, a peer.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.sizes import FULL
from benchmarks.gpu.start import ROOT, code_digest
from benchmarks.photos import DENSE, write_photos
from minet.core.cli import workers
from minet.core.errors import InputError
from minet.core.files import atomic_dir, write_json

# what the machine has, with what these need
MACHINE = ("torch", "torchvision", "pytorch-lightning", "numpy", "numba", "safetensors")
# of `stages.train`, of the tests that need a GPU, of the loops, and what these packages need
LOCKED = (
    "annotated-types", "cloudpickle", "filelock", "fvcore", "hypothesis", "iniconfig", "iopath",
    "joblib", "packaging", "pluggy", "portalocker", "psutil", "pydantic", "pydantic-core",
    "pygments", "pytest", "pyyaml", "simplejpeg", "sortedcontainers", "tabulate", "termcolor",
    "tqdm", "typing-inspection", "xxhash", "yacs",
)  # fmt: skip
UNLOCKED = ("timm",)
_SOURCES = ("fvcore", "iopath")  # published as source, of Python alone
_MAX_MB = 60
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 17, 12, 5)]
_TARGET = ("--python-version=3.12", "--implementation=cp", "--only-binary=:all:",
           *(f"--platform={name}" for name in (*_PLATFORMS, "manylinux2014_x86_64")))  # fmt: skip


def main() -> None:
    """Make the folder anew; InputError if it would be too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    with atomic_dir(args.folder) as partial:
        record = make(partial)
    print(json.dumps(record["wheels"], indent=2))
    print(f"{args.folder}: {record['megabytes']:.1f} MB, code of {record['commit']}")


def make(folder: Path) -> dict[str, Any]:
    """Fill the folder; return its record, bundle.json."""
    _download(folder / "wheels")
    write_photos(folder / "photos", FULL.photos, DENSE, workers())
    commit = _extract_code(folder / "code")
    wheels = {path.name: path.stat().st_size for path in sorted((folder / "wheels").iterdir())}
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    if megabytes > _MAX_MB:
        raise InputError(f"{folder} has {megabytes:.1f} MB; at most {_MAX_MB} are allowed")
    record = {
        "commit": commit,
        "code": code_digest(folder / "code"),
        "megabytes": megabytes,
        "wheels": wheels,
    }
    write_json(folder / "bundle.json", record)
    return record


def locked(names: Sequence[str], lock: str) -> str:
    """Return the lines of requirements.lock for some packages, with their hashes.

    InputError if one is not in it, or in more than one version.
    """
    entries = re.findall(r"^((\S+)==.*(?:\n +--hash.*)+)", lock, re.MULTILINE)
    texts = [text for text, name in entries if name in names]
    found = [name for _, name in entries]
    if wrong := [name for name in names if found.count(name) != 1]:
        raise InputError(f"requirements.lock does not have one version of {', '.join(wrong)}")
    return "\n".join(texts) + "\n"


def _download(folder: Path) -> None:
    """Download wheels, checked by the hashes of the lock; build those published as source."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    wheels = [name for name in LOCKED if name not in _SOURCES]
    with tempfile.TemporaryDirectory() as scratch:
        for command, names in (
            (("download", *_TARGET, f"--dest={folder}"), wheels),
            (("wheel", f"--wheel-dir={folder}"), _SOURCES),
        ):
            requirements = Path(scratch) / "requirements.txt"
            requirements.write_text(locked(names, lock), encoding="utf-8")
            _pip(*command, "--require-hashes", f"--requirement={requirements}")
        _pip("download", *_TARGET, f"--dest={folder}", *UNLOCKED)
    built = [path.name for path in folder.iterdir() if not path.name.endswith(".whl")]
    if built:
        raise InputError(f"not wheels: {', '.join(built)}")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    subprocess.run([*command, "--no-deps"], check=True)  # noqa: S603 - our own arguments


def _extract_code(folder: Path) -> str:
    """Extract the files that git tracks, as they are; return the commit, "-dirty" if changed."""
    git = shutil.which("git")
    if git is None:
        raise InputError("git is not installed")

    def run(*arguments: str) -> bytes:
        done = subprocess.run([git, *arguments], cwd=ROOT, check=True, capture_output=True)  # noqa: S603
        return done.stdout

    author = ("-c", "user.name=bundle", "-c", "user.email=bundle")
    changed = run(*author, "stash", "create").decode().strip()  # a commit on no branch
    archive = run("archive", "--format=tar", changed or "HEAD")
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)  # noqa: S603, S607
    return run("rev-parse", "--short", "HEAD").decode().strip() + ("-dirty" if changed else "")


if __name__ == "__main__":
    main()
