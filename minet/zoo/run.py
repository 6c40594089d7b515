"""All rows of the zoo, several at a time: a DVC process a row, then one for what joins them."""

import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from minet.core.errors import InputError
from minet.models.registry import MODELS
from minet.zoo.ray_cluster import connected, find_origin, run_rows
from minet.zoo.rows import read_zoo, with_baselines
from minet.zoo.table import MEANING, transposed

PARAMS, ROWS = Path("params.yaml"), Path("zoo/params.yaml")
PIPELINE = "zoo/dvc.yaml"
INPUTS, LOGS = Path("zoo/inputs"), Path("zoo/logs")
_OWN = ("train", "evaluate", "cost")  # stages of a row, in their order
_BUSY = "is busy"  # another DVC process holds a path for a moment
_TRIES = 5


def run_zoo(jobs: int, cores: int, only: Collection[str] = ()) -> None:
    """Bring rows up to date, `jobs` at a time, then what compares them; InputError names failures.

    With `only`, these and their baselines, and the comparison of them is printed; else all, and
    tables and page are written. What is shared is made first: DVC processes that run side by side
    must not meet in a stage.
    """
    rows = _Rows.asked(only)
    _dvc(["repro", *rows.shared()])
    waiting = rows.waiting()
    if jobs > 1 and waiting:
        environment = {"MINET_WORKERS": str(max(1, cores // jobs))}  # it changes no byte
        _tell(_side_by_side(waiting, jobs, environment), len(waiting))
    rows.finish(pull=False)


def run_zoo_on_ray(
    address: str, row_cores: int, source: str | None, only: Collection[str] = ()
) -> None:
    """Bring rows up to date on a Ray cluster; InputError names failures, or why it cannot.

    Here only what rows share is made, or pulled; their results come out of the run cache of the
    DVC remote. Interrupted, it calls off what has begun; what rows have pushed is not done again.
    """
    rows = _Rows.asked(only)
    origin = find_origin(Path(), source)
    with connected(address) as ray:
        _dvc(["repro", "--pull", *rows.shared()])
        waiting = rows.waiting()
        if waiting:
            needed = {name: reads(name, targets) for name, targets in waiting.items()}
            _dvc(["push", "-q", *sorted(set().union(*needed.values()))])
            ended = run_rows(ray, origin, waiting, needed, row_cores)
            _tell(_logged(ended), len(waiting))
    rows.finish(pull=True)


@dataclass(frozen=True)
class _Rows:
    """Rows that are asked for, with their baselines; all if none is named."""

    names: list[str]
    seeds: list[int]
    budget: str
    whole: bool

    @classmethod
    def asked(cls, only: Collection[str]) -> "_Rows":
        """Check the settings: DVC would meet a mistake first, and say it in words of its own."""
        zoo, _ = read_zoo(PARAMS, ROWS, MODELS)
        return cls(with_baselines(zoo, only or zoo.rows), zoo.seeds, zoo.budget, not only)

    def shared(self) -> list[str]:
        """Name the targets that rows share."""
        if self.whole:
            return [f"{PIPELINE}:inputs"]
        return [f"{PIPELINE}:inputs@{name}" for name in self.names]

    def waiting(self) -> dict[str, list[str]]:
        """Give the targets of those that are not up to date."""
        changed = changed_rows(_status())
        return {name: found for name, found in changed.items() if _row_of(name) in self.names}

    def finish(self, *, pull: bool) -> None:
        """Run what is left, then show how the rows compare."""
        repro = ["repro", *(["--pull"] if pull else [])]
        if self.whole:
            _dvc([*repro, PIPELINE])
            return
        runs = [f"{PIPELINE}:evaluate@{name}-{seed}" for name in self.names for seed in self.seeds]
        _dvc([*repro, *runs, *(f"{PIPELINE}:cost@{name}" for name in self.names)])
        from minet.zoo.outcomes import Folders, row_outcome  # here: scipy takes a second
        from minet.zoo.record import zoo_record

        folders = Folders(Path("zoo/settings"), INPUTS, Path("zoo/runs"), Path("zoo/cost"))
        record = zoo_record(self.budget, {name: row_outcome(name, folders) for name in self.names})
        print(f"Budget {self.budget}{MEANING.get(self.budget, '')}. p is adjusted over these rows.")
        print(transposed(record))


def reads(name: str, targets: Iterable[str], inputs: Path = INPUTS) -> list[str]:
    """Name the outputs that stages of a row, `<row>-<seed>` or `<row>`, read and do not make."""
    row = _row_of(name)
    folder = inputs / row
    named = {
        line.partition("=")[2]
        for stage in ("train", "evaluate")
        for line in (folder / f"{stage}.args").read_text(encoding="utf-8").split()
    }
    sidecars = {str(Path(path).with_suffix(".json")) for path in named if path.endswith(".beton")}
    kinds = {target.partition(":")[2].partition("@")[0] for target in targets}
    if "evaluate" in kinds and "train" not in kinds:  # trained before, scored anew
        seed = name.removeprefix(f"{row}-")
        named |= {f"checkpoints/zoo/{name}.safetensors", f"zoo/runs/{row}/{seed}/model.json"}
    return sorted(named | sidecars | {str(folder)})


def _row_of(name: str) -> str:
    return re.sub(r"-\d+$", "", name)


def changed_rows(status: Mapping[str, object]) -> dict[str, list[str]]:
    """Give the targets of each row and seed that are not up to date, from `dvc status --json`.

    A row's cost belongs to its first seed's process, or to one of its own. What trains is scored
    too, though the status, which knows the weights of before, does not say so.
    """
    rows: dict[str, list[str]] = defaultdict(list)
    for address in status:
        path, _, stage = address.partition(":")
        kind, _, name = stage.partition("@")
        if path == PIPELINE and kind in _OWN:
            rows[name].append(address)
            if kind == "train" and f"{PIPELINE}:evaluate@{name}" not in status:
                rows[name].append(f"{PIPELINE}:evaluate@{name}")
    for name in [name for name in rows if not re.search(r"-\d+$", name)]:
        runs = [run for run in rows if re.fullmatch(rf"{name}-\d+", run)]
        if runs:
            rows[runs[0]] += rows.pop(name)
    order = {f"{PIPELINE}:{kind}": place for place, kind in enumerate(_OWN)}
    return {
        name: sorted(targets, key=lambda target: order[target.partition("@")[0]])
        for name, targets in rows.items()
    }


def _side_by_side(
    rows: Mapping[str, list[str]], jobs: int, environment: dict[str, str]
) -> Iterator[tuple[str, int, float]]:
    """Run each row in a process of its own; gives row, exit code and seconds as rows end."""
    cancelled = Event()

    def in_turn(names: Iterable[str]) -> list[tuple[str, int, float]]:
        begun = (name for name in names if not cancelled.is_set())
        return [(name, *_row(name, rows[name], environment)) for name in begun]

    with ThreadPoolExecutor(jobs) as pool:
        begun = [pool.submit(in_turn, group) for group in duplicate_runs(rows)]
        try:
            for future in as_completed(begun):
                yield from future.result()
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _logged(ended: Iterable[tuple[str, int, float, str]]) -> Iterator[tuple[str, int, float]]:
    """Keep the log of each row."""
    LOGS.mkdir(exist_ok=True)
    for name, code, seconds, log in ended:
        (LOGS / f"{name}.log").write_text(log, encoding="utf-8")
        yield name, code, seconds


def _tell(ended: Iterable[tuple[str, int, float]], count: int) -> None:
    """Say how each row ends; InputError names those that failed, once all have ended."""
    failed = []
    for place, (name, code, seconds) in enumerate(ended, start=1):
        said = "done" if code == 0 else f"failed, see {LOGS / name}.log"
        print(f"{name}: {said} in {seconds:.0f} s ({place} of {count})", flush=True)
        failed += [] if code == 0 else [name]
    if failed:
        raise InputError(*(f"{name}: see {LOGS / name}.log" for name in sorted(failed)))


def duplicate_runs(rows: Iterable[str], inputs: Path = INPUTS) -> list[list[str]]:
    """Group rows, each `<row>-<seed>`, that train by the same settings, as within a small budget.

    They must not train at once: both would keep the same state to resume from.
    """
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name in rows:
        row, _, seed = name.rpartition("-")
        settings = inputs / row / f"train-{seed}.json"
        groups[settings.read_bytes() if settings.exists() else name.encode()].append(name)
    return list(groups.values())


def _row(name: str, targets: Iterable[str], environment: dict[str, str]) -> tuple[int, float]:
    """Reproduce a row's own stages; gives the exit code and the seconds that it took."""
    LOGS.mkdir(exist_ok=True)
    log, began = LOGS / f"{name}.log", time.monotonic()
    for attempt in range(_TRIES):
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(  # noqa: S603 - our own words
                # each holds DVC's own lock while it reads: many at once would not get it in time
                [*_command(), "--wait-for-lock", "repro", "-s", *targets],
                env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT, check=False,
            ).returncode  # fmt: skip
        if code == 0 or _BUSY not in log.read_text(encoding="utf-8"):
            break
        time.sleep(1 + attempt)
    return code, time.monotonic() - began


def _status() -> dict[str, object]:
    done = subprocess.run(  # noqa: S603 - our own words
        [*_command(), "status", "--json", PIPELINE], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _dvc(arguments: list[str]) -> None:
    """Run DVC, which speaks for itself; its failure is ours."""
    code = subprocess.run([*_command(), *arguments], check=False).returncode  # noqa: S603
    if code:
        sys.exit(code)


def _command() -> list[str]:
    return [sys.executable, "-m", "dvc"]
