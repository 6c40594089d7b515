"""Unpack what the machine lacks of a bundle, then run `python -m benchmarks.gpu`.

The standard library is enough: nothing is installed yet. Nothing that the machine has is replaced:
only missing packages are unpacked, into a folder that is removed at the end.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CODE = ("minet", "stages", "benchmarks", "tests")  # folders that run on the machine


def main() -> None:
    """Install and run; the exit code is that of the run."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path)
    args, rest = parser.parse_known_args()
    scratch = Path(tempfile.mkdtemp(prefix="minet-gpu-"))
    environment = os.environ | {"GPU_STARTED": repr(time.time())}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        # each of many processes would compile all that it imports
        environment["PYTHONPYCACHEPREFIX"] = str(scratch / "bytecode")
    site, options = scratch / "site", ["--scratch", str(scratch)]
    if args.out is not None:
        options += ["--out", str(args.out.resolve())]  # the run is in the tree, not here
    try:
        origin: dict[str, object] = {"code": code_digest(ROOT)}
        if args.bundle is not None:
            origin |= install(args.bundle, site)
            if (photos := args.bundle.resolve() / "photos").is_dir():
                options += ["--photos", str(photos)]
        (scratch / "origin.json").write_text(json.dumps(origin))
        paths = [str(ROOT), str(site), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        command = [sys.executable, "-m", "benchmarks.gpu", *options, *rest]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)  # noqa: S603 - ours
        sys.exit(done.returncode)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install(bundle: Path, site: Path) -> dict[str, object]:
    """Unpack the wheels of missing packages into `site`; return what was there and what was not."""
    record: dict[str, object] = json.loads((bundle / "bundle.json").read_text())
    present: dict[str, str] = {}
    unpacked: dict[str, str] = {}
    for wheel in sorted((bundle / "wheels").glob("*.whl")):
        name, wheel_version = wheel.name.split("-")[:2]
        try:
            present[name] = version(name)
        except PackageNotFoundError:
            unpacked[name] = wheel_version
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    return {
        "bundle_commit": record["commit"],
        "bundle_code": record["code"],
        "present": present,
        "unpacked": unpacked,
    }


def code_digest(root: Path) -> str:
    """Return a digest of the Python files that run on the machine."""
    code = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            code.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return code.hexdigest()[:16]


if __name__ == "__main__":
    main()
