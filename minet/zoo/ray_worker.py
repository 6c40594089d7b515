"""A run of a row of the zoo on another machine: clone, pull, reproduce, push.

Ray sends this module to its nodes, which then need minet's environment but not its tree: it imports
the standard library only.
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

# a machine that shuts down ends the processes of a row first and Ray a moment later; waiting lets
# Ray notice, and the row is not reported as failed
_SHUTDOWN_S = 5.0


def reproduce_row(
    *,
    source: str,
    commit: str,
    remotes: Mapping[str, tuple[str, str]],
    locks: Mapping[str, str],
    inputs: Mapping[str, Sequence[str]],
    targets: Sequence[str],
    workers: int,
) -> tuple[int, float, str]:
    """Reproduce the targets of one run in a temporary clone; return exit code, seconds and log.

    `remotes` are name and URL of the remote of each DVC repository, by its folder; `locks` are the
    driver's lock files, path -> text; `inputs` are outputs of other stages to pull, by folder.
    Results are pushed with the run cache: a run that was pushed before is not trained again.
    """
    started = time.monotonic()
    # Ray cancels by an interrupt, which nodes that a script started in the background ignore
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="minet-row-", ignore_cleanup_errors=True) as temporary:
        folder, log = Path(temporary, "minet"), Path(temporary, "log")
        git, dvc = ["git", "-C", str(folder)], [sys.executable, "-m", "dvc", "--cd"]
        clone = [
            ["git", "clone", "-q", "--no-checkout", source, str(folder)],
            [*git, "checkout", "-q", "--detach", commit],
        ]
        work = [
            # under its name, so that its other settings in the commit apply
            [*dvc, name, "remote", "add", "-q", "--local", "--force", "--default", *remote]
            for name, remote in remotes.items()
        ]
        work += [[*dvc, name, "pull", "-q", *paths] for name, paths in inputs.items()]
        work += [
            [*dvc, "zoo", "repro", "--pull", "-s", *targets],
            [*dvc, "zoo", "push", "-q", "--run-cache", *targets],
        ]
        with _group() as group:
            code = _all(clone, Path(temporary), workers, log, group)
            if code == 0:
                for path, text in locks.items():
                    (folder / path).write_text(text, encoding="utf-8")
                code = _all(work, folder, workers, log, group)
        if code:
            time.sleep(_SHUTDOWN_S)
        return code, time.monotonic() - started, log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _group() -> Iterator[int]:
    """Yield a process group that is killed after the block, and when this process dies in any way.

    A row that is cancelled, or starts again elsewhere, must not train on. A shell waits for our end
    of the pipe to close; it is not our child, since Ray kills the children of workers that it ends.
    """
    watch = "exec 3<&0; { read -r _; kill -KILL 0; } <&3 &"
    with subprocess.Popen(  # noqa: S603 - our own arguments
        ["/bin/sh", "-c", watch], stdin=subprocess.PIPE, process_group=0
    ) as shell:
        shell.wait()
        try:
            yield shell.pid
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def _all(steps: Iterable[Sequence[str]], folder: Path, workers: int, log: Path, group: int) -> int:
    """Run commands until one fails; return its exit code, or 0."""
    return next((code for step in steps if (code := _run(step, folder, workers, log, group))), 0)


def _run(step: Sequence[str], folder: Path, workers: int, log: Path, group: int) -> int:
    """Run a command in a process group, append its output to the log, return its exit code."""
    environment = os.environ | {
        # the commands of stages start `python`, which must be that of this environment
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MINET_WORKERS": str(workers),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(log.with_name("site")),  # else DVC leaves files per clone
    }
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            step, cwd=folder, env=environment, process_group=group,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    while process.poll() is None:
        time.sleep(0.1)  # Ray's interrupt arrives between calls, not inside a long one
    return process.returncode
