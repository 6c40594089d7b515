"""The zoo on several machines: clones with a remote, with and without Ray; nodes that die."""

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
    """Return the training stages that DVC ran, according to its output."""
    return [stage for stage in ran(output) if stage.startswith("train@")]


def add_remotes(project: Project) -> None:
    """Add and commit a remote of each DVC repository, beside the project."""
    project.run("dvc remote add -q -d store ../store")
    project.run("dvc --cd zoo remote add -q -d store ../../zoo_store")
    project.run("git commit -q -a -m remotes")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Return a zoo of two rows with a DVC remote beside it, committed and not run yet."""
    made = Zoo(tmp_path_factory.mktemp("zoo") / "minet", ROWS)
    add_remotes(made)
    return made


@pytest.fixture(scope="module")
def first(zoo: Zoo) -> Clone:
    """Return a clone that has reproduced one row and pushed it."""
    made = Clone(zoo, zoo.folder.parent / "first")
    row = "evaluate@r003_slice_r-0 cost@r003_slice_r"
    made.run("dvc repro beton")
    assert trained(made.run(f"dvc --cd zoo repro {row}")) == ["train@r003_slice_r-0"]
    made.run("dvc push -q --run-cache && dvc --cd zoo push -q --run-cache")
    return made


@pytest.fixture(scope="module")
def second(zoo: Zoo, first: Clone) -> Clone:
    """Return another clone of the same commit that has run the rest; its `output` is a file."""
    made = Clone(zoo, zoo.folder.parent / "second")
    output = made.run("dvc repro --pull beton && dvc --cd zoo repro --pull")
    (made.folder / "output").write_text(output)
    return made


@pytest.mark.slow
def test_what_another_clone_has_pushed_does_not_run_again(first: Clone, second: Clone) -> None:
    """As docs/zoo.md describes for several machines without Ray."""
    output = (second.folder / "output").read_text()
    assert trained(output) == ["train@r003_cnn3-0"]
    assert "Stage 'train@r003_slice_r-0' is cached" in output
    assert not {"sample", "beton@train", "beton@val", "beton@test"} & set(ran(output))
    weights = "zoo/checkpoints/r003_slice_r-0.safetensors"
    assert (first.folder / weights).read_bytes() == (second.folder / weights).read_bytes()


def test_input_paths_of_a_row_are_listed_once(tmp_path: Path) -> None:
    folder = tmp_path / "r_one"
    folder.mkdir()
    (folder / "train.args").write_text("--train=data/a.beton\n--classes=data/classes.csv\n")
    (folder / "evaluate.args").write_text("--test=data/t.beton\n--index=data/t.csv\n")
    named = ["data/a.beton", "data/a.json", "data/classes.csv", "data/t.beton", "data/t.csv"]
    expected = sorted([*named, "data/t.json", str(folder)])
    trains = [Target(stage, "r_one", 0) for stage in ("train", "evaluate")]
    assert input_paths(trains, tmp_path) == expected
    assert input_paths([Target("cost", "r_one")], tmp_path) == expected
    trained = {"zoo/checkpoints/r_one-0.safetensors", "zoo/runs/r_one/0/model.json"}
    assert set(input_paths(trains[1:], tmp_path)) == trained | set(expected)


class Bare(Project):
    """A git and DVC repository with settings and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "params.yaml").write_text("a: 1\n")
        self.run(
            "git init -q -b main && git config user.name t && git config user.email t@localhost"
            " && dvc init -q && mkdir zoo && cd zoo && dvc init -q --subdir"
            " && git add -A && git commit -q -m first"
        )


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "bare")


def test_a_tree_that_nodes_cannot_clone_is_rejected(bare: Bare) -> None:
    with pytest.raises(InputError, match=r"no default DVC remote in \.dvc/config"):
        find_origin(bare.folder, None)
    bare.run("dvc config core.remote lost && git commit -q -a -m lost")
    with pytest.raises(InputError, match=r"core.remote is 'lost' in \.dvc/config; it has \[\]"):
        find_origin(bare.folder, None)
    bare.run("dvc remote add -q -d -f near ../store && git commit -q -a -m remote")
    with pytest.raises(
        InputError, match=r"no default .* in zoo/\.dvc/config.*`dvc --cd zoo remote"
    ):
        find_origin(bare.folder, None)
    bare.run("dvc --cd zoo remote add -q -d far https://localhost/store")
    with pytest.raises(InputError, match="nodes clone the last commit"):
        find_origin(bare.folder, None)
    bare.run("git commit -q -a -m remote")
    with pytest.raises(InputError, match="shares no run cache over http"):
        find_origin(bare.folder, None)
    (bare.folder / "params.yaml").write_text("a: 2\n")
    with pytest.raises(InputError, match="nodes clone the last commit") as caught:
        find_origin(bare.folder, None)
    assert "M params.yaml" in caught.value.problems


def test_locks_and_tables_need_not_be_committed(bare: Bare) -> None:
    add_remotes(bare)
    for name in ("dvc.lock", "zoo/dvc.lock", "zoo/table.md"):
        (bare.folder / name).write_text("new\n")
    find_origin(bare.folder, None)


def test_nodes_clone_origin_only_if_it_has_the_commit(bare: Bare, tmp_path: Path) -> None:
    add_remotes(bare)
    origin = find_origin(bare.folder, None)
    assert origin.source == str(bare.folder)
    assert origin.remotes == {
        ".": ("store", str(tmp_path / "store")),
        "zoo": ("store", str(tmp_path / "zoo_store")),
    }
    assert origin.commit == bare.run("git rev-parse HEAD").strip()
    bare.run("git init -q --bare ../origin && git remote add origin ../origin")
    bare.run("git push -q origin main")
    assert find_origin(bare.folder, None).source == str(tmp_path / "origin")
    assert find_origin(bare.folder, "ssh://host/minet").source == "ssh://host/minet"
    bare.run("git commit -q --allow-empty -m later")
    assert find_origin(bare.folder, None).source == str(bare.folder)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="make setup GROUPS=ray"), connected("auto"):
        pass


@RAY
@pytest.mark.parametrize("address", ["localhost:1", "ray://localhost:1"])
def test_no_cluster_at_the_address(address: str) -> None:
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}'"), connected(address):
        pass


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([{"CPU": 2.0}, {"CPU": 2.0}], "3 cores, which no node has; the largest has 2"),
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], "3 cores and a GPU"),
        ([], "3 cores, which no node has; the largest has 0"),
    ],
)
def test_a_row_that_fits_no_node_is_rejected_at_once(
    sizes: list[dict[str, float]], message: str
) -> None:
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": size} for size in sizes])
    with pytest.raises(InputError, match=message):
        _task(ray, 3)


def test_a_step_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A row must not go on training when its task is killed."""
    text = (
        "import sys, pathlib; from minet.zoo.ray_worker import _group, _run\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "step = ['sh', '-c', 'sleep 100 & echo $! > pid; wait']\n"
        "with _group() as group: _run(step, folder, 1, folder / 'log', group)"
    )
    parent = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    step = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    step.wait(timeout=20)


def test_a_row_stops_at_the_step_that_fails_and_leaves_nothing(
    bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(ray_worker, "_SHUTDOWN_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    code, _, log = ray_worker.reproduce_row(
        source=str(bare.folder), commit="0" * 40, remotes={".": ("store", str(tmp_path / "store"))},
        locks={}, inputs={}, targets=[], workers=1,
    )  # fmt: skip
    assert code != 0
    assert "0" * 40 in log
    assert not list((tmp_path / "temporary").iterdir())


def until(condition: Callable[[], Any], driver: "Driver | None" = None) -> None:
    """Wait until a condition is true, while the driver runs."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert driver is None or driver.process.poll() is None, driver.output()
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Driver:
    """A process of `python -m minet zoo --ray`."""

    def __init__(self, project: Project, address: str) -> None:
        self.log = project.folder.parent / f"{project.folder.name}.log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minet", "zoo", "--ray", address],
                cwd=project.folder, stdout=file, stderr=subprocess.STDOUT,
                env=project.environment(),
            )  # fmt: skip

    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        return self.process.wait(timeout=LONGEST_S)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a Ray cluster of two nodes, each for one row at a time; they clone to `tmp_path`."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # paths of its sockets must be short
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_INCLUDE_DASHBOARD", "0")
    # nodes ignore Ctrl-C as if started by a script in the background; the driver does not
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield made
    signal.signal(signal.SIGINT, before)
    made.shutdown()


@pytest.fixture
def fresh(zoo: Zoo, tmp_path: Path) -> Clone:
    """Return a clone with an empty remote: no stage has run anywhere."""
    made = Clone(zoo, tmp_path / "driver")
    for folder, store in {".": "store", "zoo": "zoo_store"}.items():
        made.run(f"dvc --cd {folder} remote modify --local store url {tmp_path / store}")
    return made


def processes_of(node: Any) -> list[psutil.Process]:
    """Return the processes of a node, its own first."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def training(node: Any) -> list[psutil.Process]:
    """Return the processes of a node that train a row."""
    found = []
    for process in processes_of(node):
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
    """Two nodes on this machine, with a folder as the remote."""

    pytestmark = RAY_TEST

    def test_rows_are_tasks_and_a_failing_one_does_not_stop_the_others(
        self, cluster: Any, fresh: Clone, second: Clone
    ) -> None:
        """A failing row is reported with its log; once fixed, the results are as without Ray."""
        committed = (fresh.folder / "zoo/params.yaml").read_text()
        settings = fresh.params("zoo/params.yaml")
        settings["rows"]["r003_cnn3"]["train"] = {"lr": 1e30}
        fresh.write_params(settings, "zoo/params.yaml")
        fresh.run("git -c user.name=t -c user.email=t@localhost commit -q -a -m wild")
        driver = Driver(fresh, cluster.address)
        assert driver.wait() == 1
        output = driver.output()
        assert "r003_cnn3-0: failed, see zoo/logs/r003_cnn3-0.log in" in output
        assert re.search(r"^r003_slice_r-0: done in \d+ s \(\d of 2\)$", output, re.MULTILINE)
        assert "error: r003_cnn3-0: see zoo/logs/r003_cnn3-0.log" in output
        assert "Traceback" not in output
        log = (fresh.folder / "zoo/logs/r003_cnn3-0.log").read_text()
        assert trained(log) == ["train@r003_cnn3-0"]

        (fresh.folder / "zoo/params.yaml").write_text(committed)
        fresh.run("git -c user.name=t -c user.email=t@localhost commit -q -a -m fixed")
        driver = Driver(fresh, cluster.address)
        assert driver.wait() == 0, driver.output()
        assert trained(driver.output()) == []
        log = (fresh.folder / "zoo/logs/r003_slice_r-0.log").read_text()
        assert trained(log) == [], "the run before pushed it"
        assert tables(fresh) == tables(second)
        assert ran(fresh.run("python -m minet zoo --jobs 2")) == []

    def test_the_row_of_a_dead_node_runs_again_on_another(
        self, cluster: Any, fresh: Clone, second: Clone, tmp_path: Path
    ) -> None:
        """Cancelled by Ctrl-C, it leaves nothing; then a node is killed while a row trains.

        The driver itself trains nothing, and the results are as without Ray.
        """
        nodes = [cluster.head_node, *cluster.worker_nodes]
        driver = Driver(fresh, cluster.address)
        until(lambda: any(training(node) for node in nodes), driver)
        assert list(tmp_path.glob("minet-row-*"))
        trainers = [process for node in nodes for process in training(node)]
        os.kill(driver.process.pid, signal.SIGINT)
        assert driver.wait() == 130, driver.output()
        assert "Traceback" not in driver.output()
        assert driver.output().endswith("stopped; `make zoo` resumes\n")
        psutil.wait_procs(trainers, timeout=20)
        assert not [process for node in nodes for process in training(node)]
        assert not list(tmp_path.glob("minet-row-*"))

        (other,) = cluster.worker_nodes
        driver = Driver(fresh, cluster.address)
        until(lambda: training(other), driver)
        (dying,) = training(other)
        machine = processes_of(other)
        dying.kill()  # as in a shutdown: the processes of the row end first, then those of Ray
        time.sleep(1)
        for process in machine:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        dying.wait(timeout=20)
        cluster.remove_node(other, allow_graceful=False)
        assert driver.wait() == 0, driver.output()
        output = driver.output()
        for row in ROWS:
            assert re.search(rf"^{row}-0: done in \d+ s", output, re.MULTILINE), output
            log = (fresh.folder / f"zoo/logs/{row}-0.log").read_text()
            assert trained(log) == [f"train@{row}-0"]
        assert trained(output) == []
        assert tables(fresh) == tables(second)
        assert ran(fresh.run("python -m minet zoo --jobs 2")) == []
