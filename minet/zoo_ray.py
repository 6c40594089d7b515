"""Rows of the zoo as tasks of a Ray cluster, and what must hold before any of them can start."""

import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minet import zoo_worker
from minet.errors import InputError

LOCKS = ("dvc.lock", "zoo/dvc.lock")
# what rows stand on; locks and tables may differ from the commit, workers are sent the locks
_CODE = ("minet", "stages", "dvc.yaml", "params.yaml", "zoo/dvc.yaml", "zoo/params.yaml", ".dvc")
_CONNECT_S = 10.0
_TRIES = 5  # of a row whose node dies


@dataclass(frozen=True)
class Origin:
    """Where nodes get the tree from and where results go: a git URL, a commit, a DVC remote."""

    source: str
    commit: str
    remote_url: str


def find_origin(root: Path, source: str | None) -> Origin:
    """Give what nodes clone and pull; InputError if what is here cannot be had elsewhere.

    Without a source, `origin` is cloned if it has the commit, and else this repository's own path,
    which is right for nodes that share its disk.
    """
    changed = _git(root, "status", "--porcelain", "--", *_CODE)
    if changed:
        raise InputError(
            "nodes clone the last commit, which lacks what is changed here; commit first:",
            *(line.strip() for line in changed.splitlines()),
        )
    commit = _git(root, "rev-parse", "HEAD")
    if source is None:
        published = re.findall(r"origin/", _git(root, "branch", "-r", "--contains", "HEAD"))
        source = _git(root, "remote", "get-url", "origin") if published else str(root.resolve())
    return Origin(source, commit, remote_url(root))


def remote_url(root: Path) -> str:
    """Give the URL of DVC's default remote, absolute if it is a folder; InputError without one."""
    from dvc.repo import Repo  # here: it takes a second, which only this way of running needs

    config = Repo(str(root)).config
    name = config["core"].get("remote")
    if name is None:
        raise InputError(
            "no default DVC remote, through which nodes hand over their results; "
            "`dvc remote add --default <name> <url>` adds one"
        )
    url: str = config["remote"][name]["url"]
    if url.startswith(("http://", "https://")):
        raise InputError(f"remote {name} is {url}; DVC shares no run cache over http, take another")
    return url


def check_cluster(address: str) -> None:
    """Check that Ray is installed and that something listens; InputError if not.

    Ray itself waits for minutes where nothing does.
    """
    if find_spec("ray") is None:
        raise InputError("Ray is not installed; `uv pip install --group ray` adds it")
    if found := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address):
        try:
            socket.create_connection((found[1], int(found[2])), _CONNECT_S).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at {address!r}: {error}") from error


def run_rows(
    address: str,
    origin: Origin,
    rows: Mapping[str, list[str]],
    needed: Callable[[str], list[str]],
    cores: int,
) -> Iterator[tuple[str, int, str]]:
    """Run each row's targets as a task of `cores`, with a GPU if the cluster has any.

    Gives row, exit code and log as rows end, in any order. A row whose node dies starts again on
    another. `needed` names the outputs that a row reads. InputError if there is no such cluster.
    """
    ray = _connect(address)
    try:
        task = _task(ray, cores)
        locks = {name: Path(name).read_text(encoding="utf-8") for name in LOCKS}
        begun = {
            task.remote(
                source=origin.source,
                commit=origin.commit,
                remote_url=origin.remote_url,
                locks=locks,
                needed=needed(name),
                targets=targets,
                threads=cores,
            ): name
            for name, targets in rows.items()
        }
        try:
            waiting = list(begun)
            while waiting:
                (done,), waiting = ray.wait(waiting)
                yield (begun[done], *_result(ray, done))
        except BaseException:
            for future in begun:
                ray.cancel(future)
            raise
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    import ray  # here: only this way of running needs it, and it need not be installed

    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from error
    return ray


def _task(ray: Any, cores: int) -> Any:
    ray.cloudpickle.register_pickle_by_value(zoo_worker)
    found = ray.cluster_resources()
    if found.get("CPU", 0) < cores:
        raise InputError(f"a row asks for {cores} cores; the cluster has {found.get('CPU', 0):g}")
    gpus = 1 if found.get("GPU") else 0
    options = {"num_cpus": cores, "num_gpus": gpus, "max_retries": _TRIES}
    return ray.remote(**options)(zoo_worker.reproduce_row)


def _result(ray: Any, future: Any) -> tuple[int, str]:
    try:
        code, log = ray.get(future)
    except ray.exceptions.RayError as error:  # its node died too often
        return 1, str(error)
    return code, log


def _git(root: Path, *words: str) -> str:
    with suppress(FileNotFoundError):
        done = subprocess.run(  # noqa: S603 - our own words
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's git
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return done.stdout.strip("\n")
        raise InputError(f"git {words[0]}: {done.stderr.strip()}")
    raise InputError("git is not installed")
