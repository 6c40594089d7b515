"""Rows of the zoo as tasks of a Ray cluster, and the checks before any of them starts."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet.core.errors import InputError, needs_group
from minet.zoo import ray_worker
from minet.zoo.targets import ROOT, ZOO, by_repository

LOCKS = ("dvc.lock", "zoo/dvc.lock")
# inputs of rows that must be committed; nodes are sent the locks, which may differ
_CODE = ("minet", "stages", "dvc.yaml", "params.yaml", "zoo/dvc.yaml", "zoo/params.yaml")
# of the remotes: nodes are sent their URLs and clone the rest
_SETTINGS = (".dvc/config", "zoo/.dvc/config")
_MAX_RETRIES = 5  # of a row whose node dies
_CONNECT_TIMEOUT_S = 10.0
_CANCEL_TIMEOUT_S = 60


@dataclass(frozen=True)
class Origin:
    """Git URL and commit that nodes clone; name and URL of the remote of each DVC repository."""

    source: str
    commit: str
    remotes: dict[str, tuple[str, str]]


def find_origin(root: Path, source: str | None) -> Origin:
    """Return what nodes clone and pull; InputError if the working tree has uncommitted changes.

    Without a source it is `origin` if that has the commit, else the path of this repository, for
    nodes that share its disk. InputError also if a DVC repository has no usable remote, or there is
    no git.
    """
    changed = _git(root, "status", "--porcelain", "--", *_CODE, *_SETTINGS)
    if changed:
        raise InputError(
            "nodes clone the last commit, which lacks these changes; commit first:",
            *(line.strip() for line in changed.splitlines()),
        )
    commit = _git(root, "rev-parse", "HEAD")
    if source is None:
        branches = _git(root, "branch", "-r", "--contains", "HEAD", "--format=%(refname)")
        pushed = any(name.startswith("refs/remotes/origin/") for name in branches.splitlines())
        source = _git(root, "remote", "get-url", "origin") if pushed else "."
    if (root / source).exists():  # a relative path means nothing on a node
        source = str((root / source).resolve())
    remotes = {str(folder): default_remote(root, folder) for folder in (ROOT, ZOO)}
    return Origin(source, commit, remotes)


def default_remote(root: Path, folder: Path) -> tuple[str, str]:
    """Return name and URL of a DVC repository's default remote, absolute if it is a folder.

    InputError if there is none, or if it cannot store the run cache.
    """
    from dvc.repo import Repo  # here: it takes a second, which only runs on Ray need

    config = folder / ".dvc/config"
    with Repo(str(root / folder)) as repo:
        name, remotes = repo.config["core"].get("remote"), repo.config["remote"]
    if name is None:
        raise InputError(
            f"no default DVC remote in {config}, through which nodes exchange files; "
            f"`dvc --cd {folder} remote add --default <name> <url>` adds one"
        )
    if name not in remotes:
        raise InputError(f"core.remote is {name!r} in {config}; it has {sorted(remotes)}")
    url = str(remotes[name]["url"])
    if url.startswith(("http://", "https://")):
        raise InputError(f"remote {name} is {url}; DVC shares no run cache over http; use another")
    return str(name), url


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; InputError if Ray is missing or there is no cluster."""
    try:
        with needs_group("ray"):
            import ray
    except ImportError as error:  # installed, but broken
        raise InputError(f"ray cannot be imported: {error}") from error
    try:
        if match := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address):
            # Ray itself waits for minutes if nothing listens
            socket.create_connection((match[1], int(match[2])), _CONNECT_TIMEOUT_S).close()
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
    runs: Mapping[str, list[str]],
    inputs: Mapping[str, Sequence[str]],
    cores: int,
) -> Iterator[tuple[str, int, float, str]]:
    """Run the targets of each run as a task with `cores`, and with a GPU if the cluster has any.

    Yields name, exit code, seconds and log as runs end, in any order. A run whose node dies starts
    again on another. `inputs` are the outputs of other stages that each run reads, as paths from
    the root. InputError if no node has the cores.
    """
    task = _task(ray, cores)
    texts = {name: Path(name).read_text(encoding="utf-8") for name in LOCKS if Path(name).exists()}
    names = {
        task.remote(
            source=origin.source,
            commit=origin.commit,
            remotes=origin.remotes,
            locks=texts,
            inputs={str(key): paths for key, paths in by_repository(inputs[name]).items()},
            targets=targets,
            workers=cores,
        ): name
        for name, targets in runs.items()
    }
    waiting = list(names)
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield (names[done], *_result(ray, done))
    except BaseException:
        for future in waiting:
            ray.cancel(future)
        if waiting:  # disconnecting at once would end the tasks before they have cleaned up
            ray.wait(waiting, num_returns=len(waiting), timeout=_CANCEL_TIMEOUT_S)
        raise


def _task(ray: Any, cores: int) -> Any:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    if not any(node.get("CPU", 0) >= cores and node.get("GPU", 0) >= gpus for node in nodes):
        with_gpu = " and a GPU" if gpus else ""
        largest = max((node.get("CPU", 0) for node in nodes), default=0)
        raise InputError(
            f"a row needs {cores} cores{with_gpu}, which no node has; the largest has {largest:g}"
        )
    ray.cloudpickle.register_pickle_by_value(ray_worker)
    options = {"num_cpus": cores, "num_gpus": gpus, "max_retries": _MAX_RETRIES}
    return ray.remote(**options)(ray_worker.reproduce_row)


def _result(ray: Any, future: Any) -> tuple[int, float, str]:
    try:
        code, seconds, log = ray.get(future)
    except ray.exceptions.RayError as error:  # its nodes died too often
        return 1, 0.0, f"{error}\n"
    return code, seconds, log


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's git
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError("git is not installed") from None
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip("\n")
