"""A copy of this tree with a tiny sample, under git and DVC of its own: real runs for tests."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.tree import ROOT

TINY = {
    "model": "rrdb",
    "sample": {"classes": 4, "train": 48, "val": 12, "test": 12, "seed": 1},
    "train": {"epochs": 3, "batch_size": 4, "input_px": 32, "save_every_s": 0.001},
    "evaluate": {"batch_size": 8},
    "cost": {"input_px": 64},
}
COMPARED = (
    "data/index/train.csv",
    "data/beton/train.beton",
    "data/beton/val.beton",
    "data/beton/test.beton",
    "data/beton/train.json",
    "checkpoints/model.safetensors",
    "plots/history.csv",
    "plots/predictions.csv",
    "plots/curves.png",
    "metrics/data.json",
    "metrics/train.json",
    "metrics/test.json",
    "metrics/channels.json",
    "metrics/cost.json",
)


class Project:
    """A copy of this tree under git and DVC of its own, with a tiny sample."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=_not_in_git())
        raw = self.params()
        for key, value in TINY.items():
            raw[key] = raw[key] | value if isinstance(value, dict) else value
        self.write_params(raw)
        for lock in ("dvc.lock", "zoo/dvc.lock"):
            (folder / lock).unlink(missing_ok=True)
        self.prepare()
        for command in (
            "git init -q -b main",
            "git config user.name test",
            "git config user.email test@localhost",
            "git add -A",
            "git commit -q -m tiny",
        ):
            self.run(command)

    def prepare(self) -> None:
        """Change the copy before it is committed."""

    def params(self, file: str = "params.yaml") -> dict[str, Any]:
        return yaml.safe_load((self.folder / file).read_text())

    def write_params(self, raw: dict[str, Any], file: str = "params.yaml") -> None:
        (self.folder / file).write_text(yaml.safe_dump(raw, sort_keys=False))

    def run(self, command: str, *, code: int = 0, **environment: str) -> str:
        """Run a command, assert its exit code, return what it said on both streams."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment(**environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command} exited with {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, so that all of it can be killed."""
        return subprocess.Popen(
            f"exec {command}", shell=True, cwd=self.folder, env=self.environment(**environment),
            start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def environment(self, **changes: str) -> dict[str, str]:
        """Give what a command of the project sees: this Python's programs before all others."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **changes}

    def digests(self) -> dict[str, str]:
        return {name: digest(self.folder / name) for name in COMPARED}

    def record(self, name: str) -> dict:
        return json.loads((self.folder / "metrics" / f"{name}.json").read_text())

    def partials(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.partial") if ".dvc" not in path.parts]


def _not_in_git() -> Callable[[str, list[str]], list[str]]:
    """Give copytree's filter: only files that git tracks or could track."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    kept = {ROOT / name for name in listed if name}
    kept |= {parent for path in kept for parent in path.parents}
    return lambda folder, names: [name for name in names if Path(folder, name) not in kept]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ran(output: str) -> list[str]:
    """Stages that DVC said it ran."""
    return re.findall(r"Running stage '(?:zoo/dvc.yaml:)?([\w@-]+)'", output)


# what runs before what; the order of the rest is DVC's own, which hashes names
_AFTER = {
    "sample": {"resolve"},
    "index": {"sample"},
    "beton@train": {"index"},
    "beton@val": {"index"},
    "beton@test": {"index"},
    "weights": {"resolve"},
    "train": {"weights", "beton@train", "beton@val"},
    "evaluate": {"train", "beton@test"},
    "cost": {"index"},
    "plots": {"evaluate"},
}


def ran_in_order(output: str) -> set[str]:
    """Stages of the main pipeline that DVC said it ran: once each, each after what it needs."""
    stages = ran(output)
    assert len(set(stages)) == len(stages), stages
    for place, stage in enumerate(stages):
        late = _AFTER.get(stage, set()) & set(stages[place:])
        assert not late, f"{stage} ran before {late}"
    return set(stages)


class Clone(Project):
    """Another clone of a project's last commit."""

    def __init__(self, source: Project, folder: Path) -> None:
        self.folder = folder
        source.run(f"git clone -q . {folder}")


class Zoo(Project):
    """The zoo of three rows, two of them compared, the third with data of its own."""

    def __init__(
        self,
        folder: Path,
        rows: tuple[str, ...] = ("r003_resnet34", "r003_cool", "r002_resnet18"),
    ) -> None:
        self.rows = rows
        super().__init__(folder)

    def prepare(self) -> None:
        raw = self.params("zoo/params.yaml")
        raw["rows"] = {name: raw["rows"][name] for name in self.rows}
        used = {Path(row["data"]).name for row in raw["rows"].values()}
        raw["budgets"]["smoke"]["train"] = {"epochs": 1, "batch_size": 8, "input_px": 32}
        raw["variants"] = {name: kind for name, kind in raw["variants"].items() if name in used}
        for kind in raw["variants"].values():
            kind["sample"] |= {"train": 10, "val": 5, "test": 10}
            kind["beton"] = {"resize_px": 48, "crop_px": 40}
        raw["initials"] = {name: value for name, value in raw["initials"].items()
                           if name in {row["initial"] for row in raw["rows"].values()}}  # fmt: skip
        self.write_params(raw, "zoo/params.yaml")

    def tables(self) -> dict[str, str]:
        """Digests of what the zoo leaves in git."""
        return {
            name: digest(self.folder / "zoo" / name) for name in ("comparison.json", "table.md")
        }
