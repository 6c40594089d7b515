"""All rows of the zoo, several at a time: a DVC process a row, then one for what joins them."""

import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from minet.errors import InputError
from minet.results import whole_file

PIPELINE, TABLE, LOGS = "zoo/dvc.yaml", Path("zoo/table.md"), Path("zoo/logs")
_OWN = ("train", "evaluate", "cost")  # stages of a row, in their order
_BUSY = "is busy"  # another DVC process holds a path for a moment
_TRIES = 5


def run_zoo(jobs: int, cores: int) -> None:
    """Bring all rows up to date, `jobs` at a time, then the comparison; InputError names failures.

    What is shared is made first: DVC processes that run side by side must not meet in a stage.
    """
    _dvc(["repro", f"{PIPELINE}:inputs"])
    waiting = changed_rows(_status())
    if jobs > 1 and waiting:
        threads = str(max(1, cores // jobs))
        _side_by_side(waiting, jobs, {"OMP_NUM_THREADS": threads, "MINET_WORKERS": threads})
    _dvc(["repro", PIPELINE])
    put_table(Path("README.md"), TABLE)


def changed_rows(status: Mapping[str, object]) -> dict[str, list[str]]:
    """Give the targets of each row and seed that are not up to date, from `dvc status --json`.

    A row's cost belongs to its first seed's process, or to one of its own.
    """
    rows: dict[str, list[str]] = defaultdict(list)
    for address in status:
        path, _, stage = address.partition(":")
        kind, _, name = stage.partition("@")
        if path == PIPELINE and kind in _OWN:
            rows[name].append(address)
    for name in [name for name in rows if not re.search(r"-\d+$", name)]:
        runs = [run for run in rows if re.fullmatch(rf"{name}-\d+", run)]
        if runs:
            rows[runs[0]] += rows.pop(name)
    order = {f"{PIPELINE}:{kind}": place for place, kind in enumerate(_OWN)}
    return {
        name: sorted(targets, key=lambda target: order[target.partition("@")[0]])
        for name, targets in rows.items()
    }


def put_table(page: Path, table: Path) -> None:
    """Put the table of the rows between the markers of a page."""
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if line]
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append(line)
    pattern = r"(<!-- zoo -->\n).*?(<!-- /zoo -->)"
    before = page.read_text(encoding="utf-8")
    text = "\n".join(rows)
    after, found = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", before, flags=re.DOTALL)
    if found != 1:
        raise InputError(f"{page}: has {found} places between <!-- zoo --> and <!-- /zoo -->")
    if after != before:
        with whole_file(page) as partial:
            partial.write_text(after, encoding="utf-8")


def _side_by_side(rows: Mapping[str, list[str]], jobs: int, environment: dict[str, str]) -> None:
    """Run each row in a process of its own; one that fails leaves the others alone."""
    failed: list[str] = []
    count = 0
    with ThreadPoolExecutor(jobs) as pool:
        begun = [pool.submit(_in_turn, group, rows, environment) for group in twins(rows)]
        try:
            for future in as_completed(begun):
                for name, (code, seconds) in future.result().items():
                    count += 1
                    said = "done" if code == 0 else f"failed, see {LOGS / name}.log"
                    print(f"{name}: {said} in {seconds:.0f} s ({count} of {len(rows)})", flush=True)
                    failed += [] if code == 0 else [name]
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failed:
        raise InputError(*(f"{name}: see {LOGS / name}.log" for name in sorted(failed)))


def twins(rows: Iterable[str], inputs: Path = Path("zoo/inputs")) -> list[list[str]]:
    """Group rows, each `<row>-<seed>`, that train by the same settings, as within a small budget.

    They must not train at once: both would keep the same state to resume from.
    """
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name in rows:
        row, _, seed = name.rpartition("-")
        settings = inputs / row / f"train-{seed}.json"
        groups[settings.read_bytes() if settings.exists() else name.encode()].append(name)
    return list(groups.values())


def _in_turn(
    names: Iterable[str], rows: Mapping[str, list[str]], environment: dict[str, str]
) -> dict[str, tuple[int, float]]:
    return {name: _row(name, rows[name], environment) for name in names}


def _row(name: str, targets: Iterable[str], environment: dict[str, str]) -> tuple[int, float]:
    """Reproduce a row's own stages; gives the exit code and the seconds that it took."""
    LOGS.mkdir(exist_ok=True)
    log, began = LOGS / f"{name}.log", time.monotonic()
    for attempt in range(_TRIES):
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(  # noqa: S603 - our own words
                [*_command(), "repro", "-s", *targets],
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
