"""Runs with `deterministic: true`, compared by bytes; the suite's tests that need a GPU."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gpu.parts.images import FEW
from benchmarks.gpu.work import Work
from benchmarks.processes import ROOT
from benchmarks.train.job import run_settings
from tests.helpers.tiny_run import TinyRun

_MARKER = "pytest.mark.gpu"
# other versions of libraries than the locked ones may warn
_PYTEST = ("-m", "gpu", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.pytest_report",
           "-o", "filterwarnings=default")  # fmt: skip
_EPOCHS = 6  # enough of them are left at each kill
# the start of the line after which a run is killed, and the signal
_KILLS = (("epoch 0 ", signal.SIGTERM), ("epoch 1 ", signal.SIGKILL))


def measure(work: Work) -> None:
    """Report whether runs end with the same bytes, and the outcome of every test.

    All of them run at a time: most of it is start-up, and none is timed.
    """
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(job, work) for job in (_compare_runs, _run_tests)]
    for job in jobs:
        job.result()


def _compare_runs(work: Work) -> None:
    """Train to the end twice, and once more with two kills."""
    job = work.job(work.size.model, work.size.batch_size)
    recipe = {"epochs": _EPOCHS, "deterministic": True, "save_every_s": 0.1}
    settings = run_settings(job, **recipe).model_dump(mode="json")
    first, again, killed = (
        TinyRun(work.folder / FEW, work.folder / f"deterministic-{name}", settings)
        for name in ("first", "again", "killed")
    )
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(_output, run, work) for run in (first, again)]
        codes = pool.submit(lambda: [_kill_after(killed, *kill) for kill in _KILLS])
        outputs = [run.result() for run in runs]
        work.report("deterministic", "run", value=outputs[0].splitlines()[0])
        work.claim("two runs have the same bytes: differing files", _differing(first, again), [])
        work.claim("exit codes of SIGTERM and SIGKILL", codes.result(), [75, -9])
    resumed = "resumed at epoch" in _output(killed, work)
    work.claim("the killed run resumed", resumed, expected=True)
    work.claim("a killed run has the same bytes: differing files", _differing(first, killed), [])


def _output(run: TinyRun, work: Work) -> str:
    """Train to the end; return what it printed."""
    with run.running() as process:
        output, _ = process.communicate(timeout=work.left_s())
    if process.returncode:
        raise RuntimeError(f"{run.out.name}: exit code {process.returncode}: {output}")
    return output


def _kill_after(run: TinyRun, line: str, number: signal.Signals) -> int:
    """Start a run, or resume it, and send a signal once it prints a line; return its exit code."""
    with run.running() as process:
        printed = []
        for text in process.stdout or ():
            printed.append(text)
            if text.startswith(line):
                process.send_signal(number)
                process.communicate()
                return process.returncode
    raise RuntimeError(f"{run.out.name} ended before it printed {line!r}: {''.join(printed)}")


def _differing(one: TinyRun, other: TinyRun) -> list[str]:
    expected, actual = one.results(), other.results()
    return [name for name in expected if expected[name] != actual[name]]


def _run_tests(work: Work) -> None:
    """Run pytest on the files that have such tests: others import more; it reports by itself."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if _MARKER in path.read_text()]
    command = [sys.executable, "-m", "pytest", *_PYTEST, *map(str, sorted(files))]
    environment = os.environ | {"GPU_TEST_REPORT": str(work.results)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)  # noqa: S603 - ours
    work.claim("exit code of pytest", done.returncode, 0)
