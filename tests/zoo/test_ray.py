"""The zoo on several machines: clones and a remote, with Ray and without; nodes that die."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from minet.core.errors import InputError
from minet.zoo import ray_worker
from minet.zoo.ray_cluster import _task, connected, find_origin
from minet.zoo.targets import Target, input_paths
from tests.helpers.project import Clone, Project, Zoo, ran

ROWS = ("r003_cnn3", "r003_slice_r")
RAY = pytest.mark.skipif(
    find_spec("ray") is None,
    reason="Ray is not installed (make setup GROUPS=ray)",
)
LONGEST_S = 400


def trained(output: str) -> list[str]:
    return [stage for stage in ran(output) if stage.startswith("train@")]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Give a zoo of two rows, with a DVC remote beside it: it is committed and has not run."""
    made = Zoo(tmp_path_factory.mktemp("zoo") / "minet", ROWS)
    made.run("dvc remote add -q -d store ../store && git commit -q -a -m remote")
    return made


@pytest.fixture(scope="module")
def first(zoo: Zoo) -> Clone:
    """Give a clone that has reproduced one row and pushed it."""
    made = Clone(zoo, zoo.folder.parent / "first")
    row = "zoo/dvc.yaml:evaluate@r003_slice_r-0 zoo/dvc.yaml:cost@r003_slice_r"
    assert trained(made.run(f"dvc repro {row}")) == ["train@r003_slice_r-0"]
    made.run("dvc push -q --run-cache")
    return made


@pytest.fixture(scope="module")
def second(zoo: Zoo, first: Clone) -> Clone:
    """Give another clone of the same commit that finishes; its words are in `said`."""
    made = Clone(zoo, zoo.folder.parent / "second")
    (made.folder / "said").write_text(made.run("dvc repro --pull zoo/dvc.yaml"))
    return made


@pytest.mark.slow
def test_what_another_clone_has_pushed_is_not_done_again(first: Clone, second: Clone) -> None:
    """What docs/zoo.md says of several machines without Ray."""
    said = (second.folder / "said").read_text()
    assert trained(said) == ["train@r003_cnn3-0"]
    assert "Stage 'zoo/dvc.yaml:train@r003_slice_r-0' is cached" in said
    assert not {"sample", "beton@train", "beton@val", "beton@test"} & set(ran(said))
    weights = "checkpoints/zoo/r003_slice_r-0.safetensors"
    assert (first.folder / weights).read_bytes() == (second.folder / weights).read_bytes()


def test_what_a_row_reads_is_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "r_one"
    folder.mkdir()
    (folder / "train.args").write_text("--train=data/a.beton\n--classes=data/classes.csv\n")
    (folder / "evaluate.args").write_text("--test=data/t.beton\n--index=data/t.csv\n")
    named = ["data/a.beton", "data/a.json", "data/classes.csv", "data/t.beton", "data/t.csv"]
    expected = sorted([*named, "data/t.json", str(folder)])
    trains = [Target("zoo/dvc.yaml", stage, "r_one", 0) for stage in ("train", "evaluate")]
    assert input_paths(trains, tmp_path) == expected
    assert input_paths([Target("zoo/dvc.yaml", "cost", "r_one")], tmp_path) == expected
    trained = {"checkpoints/zoo/r_one-0.safetensors", "zoo/runs/r_one/0/model.json"}
    assert set(input_paths(trains[1:], tmp_path)) == trained | set(expected)


class Bare(Project):
    """A repository of git and DVC with settings and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "params.yaml").write_text("a: 1\n")
        self.run(
            "git init -q -b main && git config user.name t && git config user.email t@localhost"
            " && dvc init -q && git add -A && git commit -q -m first"
        )


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "bare")


def test_what_nodes_cannot_have_is_refused(bare: Bare) -> None:
    with pytest.raises(InputError, match="no default DVC remote"):
        find_origin(bare.folder, None)
    bare.run("dvc config core.remote lost && git commit -q -a -m lost")
    with pytest.raises(InputError, match=r"core.remote is 'lost'; DVC has the remotes \[\]"):
        find_origin(bare.folder, None)
    bare.run("dvc remote add -q -d far https://localhost/store && git commit -q -a -m remote")
    with pytest.raises(InputError, match="shares no run cache over http"):
        find_origin(bare.folder, None)
    (bare.folder / "params.yaml").write_text("a: 2\n")
    with pytest.raises(InputError, match="nodes clone the last commit") as refused:
        find_origin(bare.folder, None)
    assert "M params.yaml" in refused.value.problems


def test_locks_and_tables_need_not_be_committed(bare: Bare) -> None:
    bare.run("dvc remote add -q -d store ../store && git commit -q -a -m remote")
    (bare.folder / "zoo").mkdir()
    for name in ("dvc.lock", "zoo/dvc.lock", "zoo/table.md"):
        (bare.folder / name).write_text("new\n")
    find_origin(bare.folder, None)


def test_nodes_clone_origin_only_where_it_has_the_commit(bare: Bare, tmp_path: Path) -> None:
    bare.run("dvc remote add -q -d store ../store && git commit -q -a -m remote")
    here = find_origin(bare.folder, None)
    assert here.source == str(bare.folder)
    assert here.remote == ("store", str(tmp_path / "store"))
    assert here.commit == bare.run("git rev-parse HEAD").strip()
    bare.run("git init -q --bare ../origin && git remote add origin ../origin")
    bare.run("git push -q origin main")
    assert find_origin(bare.folder, None).source == str(tmp_path / "origin")
    assert find_origin(bare.folder, "ssh://host/minet").source == "ssh://host/minet"
    bare.run("git commit -q --allow-empty -m later")
    assert find_origin(bare.folder, None).source == str(bare.folder)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="make setup GROUPS=ray"), connected("auto"):
        pass


@RAY
@pytest.mark.parametrize("address", ["localhost:1", "ray://localhost:1"])
def test_no_cluster_at_the_address(address: str) -> None:
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}'"), connected(address):
        pass


@pytest.mark.parametrize(
    ("sizes", "asked"),
    [
        ([{"CPU": 2.0}, {"CPU": 2.0}], "3 cores, which no node has; the largest has 2"),
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], "3 cores and a GPU"),
        ([], "3 cores, which no node has; the largest has 0"),
    ],
)
def test_a_row_that_fits_no_node_is_refused_and_does_not_wait(
    sizes: list[dict[str, float]], asked: str
) -> None:
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": size} for size in sizes])
    with pytest.raises(InputError, match=asked):
        _task(ray, 3)


def test_a_step_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    """As a node's task does that is killed: its row must not train on."""
    text = (
        "import sys, pathlib; from minet.zoo.ray_worker import _group, _run\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "step = ['sh', '-c', 'sleep 100 & echo $! > pid; wait']\n"
        "with _group() as group: _run(step, folder, 1, folder / 'log', group)"
    )
    asking = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    step = psutil.Process(int((tmp_path / "pid").read_text()))
    asking.kill()
    asking.wait()
    step.wait(timeout=20)


def test_a_row_stops_at_the_step_that_fails_and_leaves_nothing(
    bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(ray_worker, "_SHUTDOWN_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    code, _, log = ray_worker.reproduce_row(
        source=str(bare.folder), commit="0" * 40, remote=("store", str(tmp_path / "store")),
        locks={}, inputs=[], targets=[], workers=1,
    )  # fmt: skip
    assert code != 0
    assert "0" * 40 in log
    assert not list((tmp_path / "temporary").iterdir())


def until(reached: Callable[[], Any], driver: "Driver | None" = None) -> None:
    """Wait for something to become true, while a driver is at work."""
    deadline = time.monotonic() + LONGEST_S
    while not reached():
        assert driver is None or driver.process.poll() is None, driver.said()
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Driver:
    """`python -m minet zoo --ray` at work."""

    def __init__(self, project: Project, address: str) -> None:
        self.log = project.folder.parent / f"{project.folder.name}.log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minet", "zoo", "--ray", address],
                cwd=project.folder, stdout=file, stderr=subprocess.STDOUT,
                env=project.environment(),
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        return self.process.wait(timeout=LONGEST_S)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a Ray cluster of two nodes, each with room for one row; rows' clones in `tmp_path`."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # paths of its sockets must be short
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_INCLUDE_DASHBOARD", "0")
    # nodes are started as by a script in the background, the driver by somebody who has a Ctrl-C
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield made
    signal.signal(signal.SIGINT, before)
    made.shutdown()


@pytest.fixture
def fresh(zoo: Zoo, tmp_path: Path) -> Clone:
    """Give a clone with an empty remote: nothing of it has been made anywhere."""
    made = Clone(zoo, tmp_path / "driver")
    made.run("dvc remote modify --local store url ../store")
    return made


def at_work(node: Any) -> list[psutil.Process]:
    """Processes of a node, its own first."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def training(node: Any) -> list[psutil.Process]:
    """Processes of a node that train a row."""
    found = []
    for process in at_work(node):
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        found += [process] if "stages.train" in words else []
    return found


def tables(project: Project) -> list[bytes]:
    return [(project.folder / "zoo" / f).read_bytes() for f in ("comparison.json", "table.md")]


RAY_TEST = [
    RAY,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning",
                               "ignore::FutureWarning"),
]  # fmt: skip


class TestRay:
    """On two nodes of this machine, with a folder as the remote."""

    pytestmark = RAY_TEST

    def test_rows_are_tasks_and_one_that_fails_leaves_the_others(
        self, cluster: Any, fresh: Clone, second: Clone
    ) -> None:
        """A failing row is named and its log kept; mended, the end is as without Ray."""
        committed = (fresh.folder / "zoo/params.yaml").read_text()
        settings = fresh.params("zoo/params.yaml")
        settings["rows"]["r003_cnn3"]["train"] = {"lr": 1e30}
        fresh.write_params(settings, "zoo/params.yaml")
        fresh.run("git -c user.name=t -c user.email=t@localhost commit -q -a -m wild")
        driver = Driver(fresh, cluster.address)
        assert driver.end() == 1
        said = driver.said()
        assert "r003_cnn3-0: failed, see zoo/logs/r003_cnn3-0.log in" in said
        assert re.search(r"^r003_slice_r-0: done in \d+ s \(\d of 2\)$", said, re.MULTILINE)
        assert "error: r003_cnn3-0: see zoo/logs/r003_cnn3-0.log" in said
        assert "Traceback" not in said
        log = (fresh.folder / "zoo/logs/r003_cnn3-0.log").read_text()
        assert trained(log) == ["train@r003_cnn3-0"]

        (fresh.folder / "zoo/params.yaml").write_text(committed)
        fresh.run("git -c user.name=t -c user.email=t@localhost commit -q -a -m mended")
        driver = Driver(fresh, cluster.address)
        assert driver.end() == 0, driver.said()
        assert trained(driver.said()) == []
        log = (fresh.folder / "zoo/logs/r003_slice_r-0.log").read_text()
        assert trained(log) == [], "pushed by the run before"
        assert tables(fresh) == tables(second)
        assert ran(fresh.run("python -m minet zoo --jobs 2")) == []

    def test_a_node_that_dies_costs_its_row_s_time(
        self, cluster: Any, fresh: Clone, second: Clone, tmp_path: Path
    ) -> None:
        """Called off by Ctrl-C, it leaves nothing; then all of a node is killed as a row trains.

        The driver trains nothing, and the end is as without Ray.
        """
        nodes = [cluster.head_node, *cluster.worker_nodes]
        driver = Driver(fresh, cluster.address)
        until(lambda: any(training(node) for node in nodes), driver)
        assert list(tmp_path.glob("minet-row-*"))
        working = [process for node in nodes for process in training(node)]
        os.kill(driver.process.pid, signal.SIGINT)
        assert driver.end() == 130, driver.said()
        assert "Traceback" not in driver.said()
        assert driver.said().endswith("stopped; `make zoo` resumes\n")
        psutil.wait_procs(working, timeout=20)
        assert not [process for node in nodes for process in training(node)]
        assert not list(tmp_path.glob("minet-row-*"))

        (other,) = cluster.worker_nodes
        driver = Driver(fresh, cluster.address)
        until(lambda: training(other), driver)
        (dying,) = training(other)
        machine = at_work(other)
        dying.kill()  # as a machine that is shut down: the row's processes end first, then Ray's
        time.sleep(1)
        for process in machine:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        dying.wait(timeout=20)
        cluster.remove_node(other, allow_graceful=False)
        assert driver.end() == 0, driver.said()
        said = driver.said()
        for row in ROWS:
            assert re.search(rf"^{row}-0: done in \d+ s", said, re.MULTILINE), said
            log = (fresh.folder / f"zoo/logs/{row}-0.log").read_text()
            assert trained(log) == [f"train@{row}-0"]
        assert trained(said) == []
        assert tables(fresh) == tables(second)
        assert ran(fresh.run("python -m minet zoo --jobs 2")) == []
