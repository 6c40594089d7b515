"""Run the rows of the zoo, several at a time: one DVC process per run, then one for the tables.

The zoo is a DVC repository below the one of the main pipeline, whose images most rows use.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from minet.core.errors import InputError
from minet.models.registry import MODELS
from minet.zoo.ray_cluster import connected, find_origin, run_rows
from minet.zoo.rows import DATA, check_packages, read_zoo, with_baselines
from minet.zoo.table import MEANING, transposed
from minet.zoo.targets import (
    INPUTS,
    ROOT,
    ZOO,
    Target,
    by_repository,
    changed_runs,
    duplicate_runs,
    input_paths,
)

PARAMS, ROWS = Path("params.yaml"), ZOO / "params.yaml"
LOGS = ZOO / "logs"
_BUSY = "is busy"  # DVC's message if another DVC process holds a path for a moment
_MAX_ATTEMPTS = 5


def run_zoo(jobs: int, cores: int, only: Collection[str] = ()) -> None:
    """Bring rows up to date, `jobs` at a time, then compare them.

    With `only`, these rows and their baselines run, and their comparison is printed; else all run,
    and tables and page are written. What rows share is made first: DVC processes that run at the
    same time must not run the same stage. InputError names mistakes in the settings and rows that
    failed; the process exits with DVC's code where DVC itself fails.
    """
    rows = _Rows.selected(only)
    rows.make_shared(pull=False)
    changed = rows.changed()
    if jobs > 1 and changed:
        environment = {"MINET_WORKERS": str(max(1, cores // jobs))}  # it changes no byte
        _report(_run_parallel(changed, jobs, environment), len(changed))
    rows.finish(pull=False)


def run_zoo_on_ray(
    address: str, row_cores: int, source: str | None, only: Collection[str] = ()
) -> None:
    """Bring rows up to date on a Ray cluster, then compare them here.

    Only what rows share is made, or pulled, on this machine; results come from the run cache of
    the DVC remote. If interrupted it cancels what has started; what rows have pushed is kept.
    InputError names mistakes in the settings, rows that failed, and what the cluster lacks.
    """
    rows = _Rows.selected(only)
    origin = find_origin(Path(), source)
    with connected(address) as ray:
        rows.make_shared(pull=True)
        changed = rows.changed()
        if changed:
            inputs = {name: input_paths(targets) for name, targets in changed.items()}
            for folder, paths in by_repository(set().union(*inputs.values())).items():
                _dvc(["push", "-q", *paths], folder)
            addresses = {name: [*map(str, targets)] for name, targets in changed.items()}
            _report(_save_logs(run_rows(ray, origin, addresses, inputs, row_cores)), len(changed))
    rows.finish(pull=True)


@dataclass(frozen=True)
class _Rows:
    """The selected rows with their baselines; all of them if none is named."""

    names: list[str]
    seeds: list[int]
    budget: str
    complete: bool
    use_root: bool  # some read the images of the main pipeline

    @classmethod
    def selected(cls, only: Collection[str]) -> "_Rows":
        """Check packages and settings now: DVC's messages about settings are less clear."""
        check_packages()
        zoo, _ = read_zoo(PARAMS, ROWS, MODELS)
        names = with_baselines(zoo, only or zoo.rows)
        return cls(
            names=names,
            seeds=zoo.seeds,
            budget=zoo.budget,
            complete=not only,
            use_root=any(zoo.rows[name].data == DATA for name in names),
        )

    def make_shared(self, *, pull: bool) -> None:
        """Make or pull what rows share: betons of the main pipeline, then the inputs of rows."""
        repro = ["repro", *(["--pull"] if pull else [])]
        if self.use_root:
            _dvc([*repro, "beton"], ROOT)
        names = ["inputs"] if self.complete else [f"inputs@{name}" for name in self.names]
        _dvc([*repro, *names])

    def changed(self) -> dict[str, list[Target]]:
        """Return the targets of these rows that are not up to date, by run."""
        changed = changed_runs(_status())
        return {run: targets for run, targets in changed.items() if targets[0].row in self.names}

    def finish(self, *, pull: bool) -> None:
        """Run what is left: the tables and the page, or the print of the selected rows."""
        repro = ["repro", *(["--pull"] if pull else [])]
        if self.complete:
            _dvc(repro)
            return
        runs = [str(Target("evaluate", row, seed)) for row in self.names for seed in self.seeds]
        costs = [str(Target("cost", row)) for row in self.names]
        _dvc([*repro, *runs, *costs])
        from minet.zoo.outcomes import Folders, row_outcome  # here: scipy takes a second
        from minet.zoo.record import zoo_record

        folders = Folders(
            settings=ZOO / "settings",
            inputs=INPUTS,
            runs=ZOO / "runs",
            costs=ZOO / "cost",
        )
        record = zoo_record(self.budget, {name: row_outcome(name, folders) for name in self.names})
        print(f"Budget {self.budget}{MEANING.get(self.budget, '')}. p is adjusted over these rows.")
        print(transposed(record))


def _run_parallel(
    runs: Mapping[str, Sequence[Target]], jobs: int, environment: dict[str, str]
) -> Iterator[tuple[str, int, float]]:
    """Yield name, exit code and seconds of each run as it ends; each is a process."""
    cancelled = Event()

    def run_group(names: Iterable[str]) -> list[tuple[str, int, float]]:
        started = (name for name in names if not cancelled.is_set())
        return [(name, *_run(name, runs[name], environment)) for name in started]

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_group, group) for group in duplicate_runs(runs)]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _save_logs(ended: Iterable[tuple[str, int, float, str]]) -> Iterator[tuple[str, int, float]]:
    """Write the log of each run, yield the rest."""
    LOGS.mkdir(exist_ok=True)
    for name, code, seconds, log in ended:
        (LOGS / f"{name}.log").write_text(log, encoding="utf-8")
        yield name, code, seconds


def _report(ended: Iterable[tuple[str, int, float]], count: int) -> None:
    """Print the result of each run; InputError names those that failed, once all have ended."""
    failed = []
    for number, (name, code, seconds) in enumerate(ended, start=1):
        result = "done" if code == 0 else f"failed, see {LOGS / name}.log"
        print(f"{name}: {result} in {seconds:.0f} s ({number} of {count})", flush=True)
        failed += [] if code == 0 else [name]
    if failed:
        raise InputError(*(f"{name}: see {LOGS / name}.log" for name in sorted(failed)))


def _run(name: str, targets: Iterable[Target], environment: dict[str, str]) -> tuple[int, float]:
    """Reproduce the targets of a run; return exit code and seconds."""
    LOGS.mkdir(exist_ok=True)
    log, started = LOGS / f"{name}.log", time.monotonic()
    for attempt in range(_MAX_ATTEMPTS):
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(  # noqa: S603 - our own arguments
                # each holds DVC's lock while it reads: many at once would time out without the flag
                [*_command(ZOO), "--wait-for-lock", "repro", "-s", *map(str, targets)],
                env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT, check=False,
            ).returncode  # fmt: skip
        if code == 0 or _BUSY not in log.read_text(encoding="utf-8"):
            break
        time.sleep(1 + attempt)
    return code, time.monotonic() - started


def _status() -> dict[str, object]:
    done = subprocess.run(  # noqa: S603 - our own arguments
        [*_command(ZOO), "status", "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    status: dict[str, object] = json.loads(done.stdout)
    return status


def _dvc(arguments: list[str], folder: Path = ZOO) -> None:
    """Run DVC in a repository, with its own output; exit with its code if it fails."""
    code = subprocess.run([*_command(folder), *arguments], check=False).returncode  # noqa: S603
    if code:
        sys.exit(code)


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "dvc", "--cd", str(folder)]
