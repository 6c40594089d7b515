"""A row of the zoo on another machine: clone, pull, reproduce, push.

Ray sends this module to its nodes, so that they need minet's environment but not its tree: it
imports nothing but Python's own library.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# a machine that goes down ends a row's processes first and Ray a moment later: no fault of the row
_GOING_DOWN_S = 5.0


def reproduce_row(
    *,
    source: str,
    commit: str,
    remote: tuple[str, str],
    locks: Mapping[str, str],
    needed: Sequence[str],
    targets: Sequence[str],
    workers: int,
) -> tuple[int, float, str]:
    """Reproduce the targets of one row in a clone of its own; gives exit code, seconds and log.

    `remote` is name and URL of the DVC remote, `locks` are texts of lock files, by path, of what
    the driver has made; `needed` are outputs to pull. What comes out is pushed with the run cache,
    from where whoever asks next takes it: a row that was pushed before is not trained again.
    """
    began = time.monotonic()
    # Ray calls a row off by an interrupt, which nodes started in the background of a script ignore
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="minet-row-", ignore_cleanup_errors=True) as made:
        folder, log = Path(made, "minet"), Path(made, "log")
        git, dvc = ["git", "-C", str(folder)], [sys.executable, "-m", "dvc"]
        clone = [
            ["git", "clone", "-q", "--no-checkout", source, str(folder)],
            [*git, "checkout", "-q", "--detach", commit],
        ]
        work = [
            # by its name, so that what the commit says of it beside the URL holds
            [*dvc, "remote", "add", "-q", "--local", "--force", "--default", *remote],
            [*dvc, "pull", "-q", *needed],
            [*dvc, "repro", "--pull", "-s", *targets],
            [*dvc, "push", "-q", "--run-cache", *targets],
        ]
        with _group() as group:
            code = _all(clone, Path(made), workers, log, group)
            if code == 0:
                for path, text in locks.items():
                    (folder / path).write_text(text, encoding="utf-8")
                code = _all(work, folder, workers, log, group)
        if code:
            time.sleep(_GOING_DOWN_S)
        return code, time.monotonic() - began, log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _group() -> Iterator[int]:
    """Give a process group that ends with the block, and with this process however that dies.

    A row that is called off, or starts again elsewhere, must not train on. What waits for our end
    of the pipe to close is no child of ours: Ray kills those of a worker that it ends.
    """
    watch = "exec 3<&0; { read -r _; kill -KILL 0; } <&3 &"
    with subprocess.Popen(  # noqa: S603 - our own words
        ["/bin/sh", "-c", watch], stdin=subprocess.PIPE, process_group=0
    ) as shell:
        shell.wait()
        try:
            yield shell.pid
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def _all(steps: Iterable[Sequence[str]], folder: Path, workers: int, log: Path, group: int) -> int:
    """Run commands until one fails; gives its exit code, or 0."""
    return next((code for step in steps if (code := _run(step, folder, workers, log, group))), 0)


def _run(step: Sequence[str], folder: Path, workers: int, log: Path, group: int) -> int:
    """Run a command in a group of processes, its words added to the log; gives its exit code."""
    environment = os.environ | {
        # stages say `python`, which must be the one that has what they need
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MINET_WORKERS": str(workers),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(log.with_name("site")),  # else a trace of each clone stays
    }
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(  # noqa: S603 - our own words
            step, cwd=folder, env=environment, process_group=group,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    while process.poll() is None:
        time.sleep(0.1)  # Ray's interrupt reaches Python between calls, not inside a long one
    return process.returncode
