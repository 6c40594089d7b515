"""A copy of this tree with a tiny sample in its own git and DVC repository: real runs for tests."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    "data/index/data.json",
    "runs/current/model.safetensors",
    "runs/current/history.csv",
    "runs/current/predictions.csv",
    "runs/current/train.json",
    "runs/current/test.json",
    "runs/current/channels.json",
    "runs/current/cost.json",
    "plots/curves.png",
    "metrics/test.json",
)


class Project:
    """A copy of this tree in its own git and DVC repository, with a tiny sample."""

    rows: tuple[str, ...] = ("r003_cnn3",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=_not_in_git())
        raw = self.params()
        for key, value in TINY.items():
            raw[key] = raw[key] | value if isinstance(value, dict) else value
        self.write_params(raw)
        for lock in ("dvc.lock", "zoo/dvc.lock"):
            (folder / lock).unlink(missing_ok=True)
        self.prepare_zoo()
        for command in (
            "git init -q -b main",
            "git config user.name test",
            "git config user.email test@localhost",
            "git add -A",
            "git commit -q -m tiny",
        ):
            self.run(command)

    def prepare_zoo(self) -> None:
        """Keep one row of the zoo: DVC reads every stage in each command, which takes seconds."""
        raw = self.params("zoo/params.yaml")
        self.write_params(self.smaller_zoo(raw), "zoo/params.yaml")

    def smaller_zoo(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the zoo's settings with `rows` only, and the data and weights that they use."""
        rows = {name: raw["rows"][name] for name in self.rows}
        data = {Path(row["data"]).name for row in rows.values()}
        initials = {row["initial"] for row in rows.values()}
        return raw | {
            "rows": rows,
            "variants": {name: kind for name, kind in raw["variants"].items() if name in data},
            "initials": {name: kind for name, kind in raw["initials"].items() if name in initials},
        }

    def params(self, file: str = "params.yaml") -> dict[str, Any]:
        return yaml.safe_load((self.folder / file).read_text())

    def write_params(self, raw: dict[str, Any], file: str = "params.yaml") -> None:
        (self.folder / file).write_text(yaml.safe_dump(raw, sort_keys=False))

    def run(self, command: str, *, code: int = 0, **environment: str) -> str:
        """Run a command, check its exit code, and return what it printed on both streams."""
        with self.running(command, **environment) as process:
            output, _ = process.communicate(timeout=500)
        assert process.returncode == code, f"{command} exited with {process.returncode}\n{output}"
        return output

    @contextmanager
    def running(self, command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command in its own process group, which is killed at the end of the block.

        A command that is to be killed begins with `exec`: a shell between it and this process would
        die with it and leave a zombie, which DVC would wait for.
        """
        with subprocess.Popen(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment(**environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a command: the programs of this Python come first."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **changes}

    def digests(self) -> dict[str, str]:
        return {name: digest(self.folder / name) for name in COMPARED}

    def record(self, name: str, run: str = "current") -> dict:
        """Return a record of a run by its name."""
        return json.loads((self.folder / "runs" / run / f"{name}.json").read_text())

    def published(self) -> dict:
        """Return the metrics that Git keeps."""
        return json.loads((self.folder / "metrics/test.json").read_text())

    def partials(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.partial") if ".dvc" not in path.parts]


def _not_in_git() -> Callable[[str, list[str]], list[str]]:
    """Return a filter for copytree: only files that git tracks or does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    kept = {ROOT / name for name in listed if name}
    kept |= {parent for path in kept for parent in path.parents}
    return lambda folder, names: [name for name in names if Path(folder, name) not in kept]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, according to its output."""
    return re.findall(r"Running stage '(?:zoo/dvc.yaml:)?([\w@-]+)'", output)


# stages that must run before a stage; DVC orders the others by a hash of their names
_AFTER = {
    "sample": {"resolve"},
    "index": {"sample"},
    "beton@train": {"index"},
    "beton@val": {"index"},
    "beton@test": {"index"},
    "weights": {"resolve"},
    "train": {"weights", "beton@train", "beton@val"},
    "evaluate": {"train", "beton@test"},
    "cost": {"resolve", "index"},
    "plots": {"evaluate"},
    "publish": {"evaluate", "cost"},
}


def ran_in_order(output: str) -> set[str]:
    """Return the stages of the main pipeline that DVC ran: each once, after those it needs."""
    stages = ran(output)
    assert len(set(stages)) == len(stages), stages
    for index, stage in enumerate(stages):
        late = _AFTER.get(stage, set()) & set(stages[index:])
        assert not late, f"{stage} ran before {late}"
    return set(stages)


class Clone(Project):
    """A clone of the last commit of a project."""

    def __init__(self, source: Project, folder: Path) -> None:
        self.folder = folder
        source.run(shlex.join(["git", "clone", "-q", ".", str(folder)]))


class Zoo(Project):
    """The zoo with three rows: two are compared, the third has its own data."""

    def __init__(
        self,
        folder: Path,
        rows: tuple[str, ...] = ("r003_cnn3", "r003_cool", "r002_resnet18"),
    ) -> None:
        self.rows = rows
        super().__init__(folder)

    def smaller_zoo(self, raw: dict[str, Any]) -> dict[str, Any]:
        raw = super().smaller_zoo(raw)
        raw["budgets"]["smoke"]["train"] = {"epochs": 1, "batch_size": 8, "input_px": 32}
        for row in raw["rows"].values():  # costs are counted at the size of the recipe
            raw["recipes"][row["recipe"]]["input_px"] = 64
        for kind in raw["variants"].values():
            kind["sample"] |= {"train": 10, "val": 5, "test": 10}
            kind["beton"] = {"resize_px": 48, "crop_px": 40}
        if "r003_cool" in raw["rows"]:  # its baseline has 100 times the parameters
            raw["rows"]["r003_cool"]["baseline"] = "r003_cnn3"
        return raw

    def tables(self) -> dict[str, str]:
        """Return digests of the zoo's tables, which are committed."""
        return {
            name: digest(self.folder / "zoo" / name) for name in ("comparison.json", "table.md")
        }
