"""A row of the zoo on another machine: clone, pull, reproduce, push.

Ray sends this module to its nodes, so that they need minet's environment but not its tree: it
imports nothing but Python's own library.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_REMOTE = "minet-zoo"


def reproduce_row(
    *,
    source: str,
    commit: str,
    remote_url: str,
    locks: Mapping[str, str],
    needed: Sequence[str],
    targets: Sequence[str],
    threads: int,
) -> tuple[int, str]:
    """Reproduce the targets of one row in a clone of its own; gives an exit code and the log.

    `locks` are texts of lock files, by path, of what the driver has made; `needed` are outputs to
    pull. What comes out is pushed with the run cache, from where whoever asks next takes it. Rows
    of a node share a DVC cache and nothing else. Threads are of one row.
    """
    log: list[str] = []
    with tempfile.TemporaryDirectory(prefix="minet-row-") as made:
        folder = Path(made, "minet")
        git, dvc = ["git", "-C", str(folder)], [sys.executable, "-m", "dvc"]
        clone = [
            ["git", "clone", "-q", "--no-checkout", source, str(folder)],
            [*git, "checkout", "-q", "--detach", commit],
        ]
        work = [
            [*dvc, "cache", "dir", "--local", str(_cache(remote_url))],
            [*dvc, "config", "--local", "cache.type", "hardlink,copy"],
            [*dvc, "remote", "add", "-q", "--local", "--default", _REMOTE, remote_url],
            [*dvc, "pull", "-q", *needed],
            [*dvc, "repro", "-s", *targets],
            [*dvc, "push", "-q", "--run-cache", *targets],
        ]
        code = _all(clone, Path(made), threads, log)
        if code == 0:
            for path, text in locks.items():
                (folder / path).write_text(text, encoding="utf-8")
            code = _all(work, folder, threads, log)
    return code, "".join(log)


def _all(steps: Iterable[Sequence[str]], folder: Path, threads: int, log: list[str]) -> int:
    """Run commands until one fails; gives its exit code, or 0."""
    return next((code for step in steps if (code := _run(step, folder, threads, log))), 0)


def _cache(remote_url: str) -> Path:
    """Name this user's cache on this node; one of another remote is another."""
    key = hashlib.sha256(remote_url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"minet-zoo-cache-{os.getuid()}", key)


def _run(step: Sequence[str], folder: Path, threads: int, log: list[str]) -> int:
    """Run a command; when the row is called off, all that it has started ends with it."""
    environment = os.environ | {
        # stages say `python`, which must be the one that has what they need
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(threads),
        "MINET_WORKERS": str(threads),
        "DVC_NO_ANALYTICS": "1",
    }
    process = subprocess.Popen(  # noqa: S603 - our own words
        step, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    log.append(said)
    return process.returncode
