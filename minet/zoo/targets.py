"""Targets of the zoo's pipeline: which row, stage and seed a DVC address is, what it reads."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT, ZOO = Path(), Path("zoo")  # DVC repositories: of the main pipeline, of the zoo
INPUTS = ZOO / "inputs"
STAGES = ("train", "evaluate", "cost")  # of a row, in the order in which they run
_ADDRESS = re.compile(r"(?P<stage>\w+)@(?P<row>\w+?)(-(?P<seed>\d+))?")


@dataclass(frozen=True)
class Target:
    """A stage of one row; `str` is its address for DVC, `train@r003_cool-0`.

    `seed` is None for a stage that runs once per row.
    """

    stage: str
    row: str
    seed: int | None = None

    @classmethod
    def parse(cls, address: str) -> "Target | None":
        """Return the target at an address, None if it is not a stage of a row."""
        match = _ADDRESS.fullmatch(address)
        if match is None or match["stage"] not in STAGES:
            return None
        seed = None if match["seed"] is None else int(match["seed"])
        return cls(match["stage"], match["row"], seed)

    @property
    def run(self) -> str:
        """Name of the row and seed, `r003_cool-0`, or of the row."""
        return self.row if self.seed is None else f"{self.row}-{self.seed}"

    def __str__(self) -> str:
        """Return the address."""
        return f"{self.stage}@{self.run}"


def changed_runs(status: Iterable[str]) -> dict[str, list[Target]]:
    """Return the targets that are not up to date by run, from the addresses of `dvc status`.

    A row's cost is done with the first of its runs, or alone. What trains is scored too: DVC
    compares with the weights of before and does not list its evaluation.
    """
    targets = [target for address in status if (target := Target.parse(address))]
    targets += [replace(t, stage="evaluate") for t in targets if t.stage == "train"]
    first_runs: dict[str, str] = {}
    for target in targets:
        if target.seed is not None:
            first_runs.setdefault(target.row, target.run)
    runs: dict[str, set[Target]] = defaultdict(set)
    for target in targets:
        run = target.run if target.seed is not None else first_runs.get(target.row, target.run)
        runs[run].add(target)
    return {
        run: sorted(targets, key=lambda target: STAGES.index(target.stage))
        for run, targets in runs.items()
    }


def input_paths(targets: Sequence[Target], inputs: Path = INPUTS) -> list[str]:
    """Return the outputs of other stages that the targets of one run read, as paths from ROOT."""
    folder = inputs / targets[0].row
    paths = {
        line.partition("=")[2]
        for stage in ("train", "evaluate")
        for line in (folder / f"{stage}.args").read_text(encoding="utf-8").split()
    }
    sidecars = {str(Path(path).with_suffix(".json")) for path in paths if path.endswith(".beton")}
    trained = {target.run for target in targets if target.stage == "train"}
    for target in targets:
        if target.stage == "evaluate" and target.run not in trained:
            paths.add(f"zoo/checkpoints/{target.run}.safetensors")
            paths.add(f"zoo/runs/{target.row}/{target.seed}/model.json")
    return sorted(paths | sidecars | {str(folder)})


def by_repository(paths: Iterable[str]) -> dict[Path, list[str]]:
    """Divide paths from ROOT between the DVC repositories that they are in, relative to each."""
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in map(Path, sorted(paths)):
        folder = ZOO if path.is_relative_to(ZOO) else ROOT
        folders[folder].append(str(path.relative_to(folder)))
    return folders


def duplicate_runs(runs: Mapping[str, Sequence[Target]], inputs: Path = INPUTS) -> list[list[str]]:
    """Group the names of runs that train with the same settings, as a small budget makes them.

    Runs of a group must not train at the same time: their snapshots for resuming have one key.
    """
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, targets in runs.items():
        seed = next((target.seed for target in targets if target.seed is not None), None)
        settings = inputs / targets[0].row / f"train-{seed}.json"
        groups[settings.read_bytes() if settings.exists() else name.encode()].append(name)
    return list(groups.values())
