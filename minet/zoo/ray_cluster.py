"""Rows of the zoo as tasks of a Ray cluster, and what must hold before any of them can start."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet.core.errors import InputError, needs_group
from minet.zoo import ray_worker as zoo_worker

LOCKS = ("dvc.lock", "zoo/dvc.lock")
# what rows stand on; locks and tables may differ from the commit, nodes are sent the locks
_CODE = ("minet", "stages", "dvc.yaml", "params.yaml", "zoo/dvc.yaml", "zoo/params.yaml")
_SETTINGS = (".dvc/config",)  # of the remote: nodes are told its URL, and clone the rest
_RETRIES = 5  # of a row whose node dies
_CONNECT_S = 10.0
_LONGEST_END_S = 60  # of rows that are called off


@dataclass(frozen=True)
class Origin:
    """Where nodes get the tree from and where results go: git URL, commit, DVC remote with URL."""

    source: str
    commit: str
    remote: tuple[str, str]


def find_origin(root: Path, source: str | None) -> Origin:
    """Give what nodes clone and pull; InputError if what is here cannot be had elsewhere.

    Without a source, `origin` is cloned if it has the commit, and else this repository's own path,
    which is right for nodes that share its disk.
    """
    changed = _git(root, "status", "--porcelain", "--", *_CODE, *_SETTINGS)
    if changed:
        raise InputError(
            "nodes clone the last commit, which lacks what is changed here; commit first:",
            *(line.strip() for line in changed.splitlines()),
        )
    commit = _git(root, "rev-parse", "HEAD")
    if source is None:
        having = _git(root, "branch", "-r", "--contains", "HEAD", "--format=%(refname)")
        published = any(name.startswith("refs/remotes/origin/") for name in having.splitlines())
        source = _git(root, "remote", "get-url", "origin") if published else "."
    if (root / source).exists():  # a relative path means nothing elsewhere
        source = str((root / source).resolve())
    return Origin(source, commit, default_remote(root))


def default_remote(root: Path) -> tuple[str, str]:
    """Give name and URL of DVC's default remote, absolute if it is a folder.

    InputError if there is none, or if it cannot hold the run cache.
    """
    from dvc.repo import Repo  # here: it takes a second, which only this way of running needs

    with Repo(str(root)) as repo:
        name, remotes = repo.config["core"].get("remote"), repo.config["remote"]
    if name is None:
        raise InputError(
            "no default DVC remote, through which nodes hand over their results; "
            "`dvc remote add --default <name> <url>` adds one"
        )
    if name not in remotes:
        raise InputError(f"core.remote is {name!r}; DVC knows {sorted(remotes)}")
    url = str(remotes[name]["url"])
    if url.startswith(("http://", "https://")):
        raise InputError(f"remote {name} is {url}; DVC shares no run cache over http, take another")
    return str(name), url


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; InputError if Ray is missing or there is no cluster."""
    with needs_group("ray"):
        import ray
    try:
        if found := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address):
            # Ray itself waits for minutes where nothing listens
            socket.create_connection((found[1], int(found[2])), _CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def run_rows(
    ray: Any,
    origin: Origin,
    rows: Mapping[str, list[str]],
    needed: Mapping[str, list[str]],
    cores: int,
) -> Iterator[tuple[str, int, float, str]]:
    """Run each row's targets as a task of `cores`, with a GPU if the cluster has any.

    Gives row, exit code, seconds and log as rows end, in any order. A row whose node dies starts
    again on another. `needed` has the outputs that each row reads. InputError if no node has room.
    """
    task = _task(ray, cores)
    texts = {name: Path(name).read_text(encoding="utf-8") for name in LOCKS if Path(name).exists()}
    begun = {
        task.remote(
            source=origin.source,
            commit=origin.commit,
            remote=origin.remote,
            locks=texts,
            needed=needed[name],
            targets=targets,
            workers=cores,
        ): name
        for name, targets in rows.items()
    }
    waiting = list(begun)
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield (begun[done], *_result(ray, done))
    except BaseException:
        for future in waiting:
            ray.cancel(future)
        if waiting:  # who leaves at once takes the tasks away before they have cleared up
            ray.wait(waiting, num_returns=len(waiting), timeout=_LONGEST_END_S)
        raise


def _task(ray: Any, cores: int) -> Any:
    sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(any(size.get("GPU", 0) >= 1 for size in sizes))
    if not any(size.get("CPU", 0) >= cores and size.get("GPU", 0) >= gpus for size in sizes):
        beside = " beside a GPU" if gpus else ""
        largest = max((size.get("CPU", 0) for size in sizes), default=0)
        raise InputError(
            f"a row asks for {cores} cores{beside}, which no node has; the largest has {largest:g}"
        )
    ray.cloudpickle.register_pickle_by_value(zoo_worker)
    options = {"num_cpus": cores, "num_gpus": gpus, "max_retries": _RETRIES}
    return ray.remote(**options)(zoo_worker.reproduce_row)


def _result(ray: Any, future: Any) -> tuple[int, float, str]:
    try:
        code, seconds, log = ray.get(future)
    except ray.exceptions.RayError as error:  # its node died too often
        return 1, 0.0, f"{error}\n"
    return code, seconds, log


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's git
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError("git is not installed") from None
    if done.returncode:
        raise InputError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip("\n")
