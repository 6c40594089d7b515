"""The zoo on several machines: clones and a remote, with Ray and without; nodes that die."""

import os
import re
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from project import Clone, Project, Zoo, ran

from minet.errors import InputError
from minet.zoo_ray import check_cluster, find_origin
from minet.zoo_run import reads

ROWS = ("r003_cnn3", "r003_slice_r")
RAY = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed (uv pip install --group ray)"
)


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """Give a zoo of two rows that has not run, with a DVC remote that is known to git."""
    made = Zoo(tmp_path / "minet", ROWS)
    made.run(f"dvc remote add -q -d store {tmp_path / 'store'} && git commit -qam remote")
    return made


def trained(output: str) -> list[str]:
    return [stage for stage in ran(output) if stage.startswith("train@")]


def test_a_row_of_another_clone_is_pulled_and_not_trained_again(zoo: Zoo, tmp_path: Path) -> None:
    """What docs/zoo.md says of several machines without Ray."""
    other = Clone(zoo, tmp_path / "other")
    row = "zoo/dvc.yaml:evaluate@r003_slice_r-0 zoo/dvc.yaml:cost@r003_slice_r"
    assert trained(other.run(f"dvc repro {row}")) == ["train@r003_slice_r-0"]
    other.run("dvc push -q --run-cache")
    said = zoo.run("dvc repro --pull zoo/dvc.yaml")
    assert trained(said) == ["train@r003_cnn3-0"]
    assert "Stage 'zoo/dvc.yaml:train@r003_slice_r-0' is cached" in said
    weights = "checkpoints/zoo/r003_slice_r-0.safetensors"
    assert (zoo.folder / weights).read_bytes() == (other.folder / weights).read_bytes()


def test_what_a_row_reads_is_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "r_one"
    folder.mkdir()
    (folder / "train.args").write_text("--train=data/a.beton\n--classes=data/classes.csv\n")
    (folder / "evaluate.args").write_text("--test=data/t.beton\n--index=data/t.csv\n")
    named = ["data/a.beton", "data/a.json", "data/classes.csv", "data/t.beton", "data/t.csv"]
    assert reads("r_one-0", tmp_path) == sorted([*named, "data/t.json", str(folder)])


class Bare(Project):
    """A repository of git and DVC with a stage file and nothing else."""

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
    bare.run("dvc remote add -q -d far https://localhost/store && git commit -qam remote")
    with pytest.raises(InputError, match="shares no run cache over http"):
        find_origin(bare.folder, None)
    (bare.folder / "params.yaml").write_text("a: 2\n")
    with pytest.raises(InputError, match="nodes clone the last commit") as refused:
        find_origin(bare.folder, None)
    assert "M params.yaml" in str(refused.value)


def test_nodes_clone_origin_only_where_it_has_the_commit(bare: Bare, tmp_path: Path) -> None:
    bare.run("dvc remote add -q -d store ../store && git commit -qam remote")
    here = find_origin(bare.folder, None)
    assert here.source == str(bare.folder)
    assert here.remote_url == str(tmp_path / "store")
    assert here.commit == bare.run("git rev-parse HEAD").strip()
    bare.run("git init -q --bare ../origin && git remote add origin ../origin")
    bare.run("git push -q origin main")
    assert find_origin(bare.folder, None).source == "../origin"
    assert find_origin(bare.folder, "ssh://host/minet").source == "ssh://host/minet"
    bare.run("git commit -q --allow-empty -m later")
    assert find_origin(bare.folder, None).source == str(bare.folder)


@RAY
@pytest.mark.parametrize("address", ["localhost:1", "ray://localhost:1"])
def test_no_cluster_at_the_address(address: str) -> None:
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}'"):
        check_cluster(address)


def test_without_ray_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("minet.zoo_ray.find_spec", lambda _: None)
    with pytest.raises(InputError, match="uv pip install --group ray"):
        check_cluster("auto")


def rows_at_work() -> list[int]:
    """Processes that train a row in a node's clone."""
    found = subprocess.run(
        ["pgrep", "-f", "stages.train @zoo/inputs"], capture_output=True, text=True, check=False
    )
    return [pid for pid in map(int, found.stdout.split())
            if "minet-row-" in str(Path(f"/proc/{pid}/cwd").readlink())]  # fmt: skip


@RAY
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_two_nodes_of_which_one_dies(zoo: Zoo, tmp_path: Path) -> None:
    """Each row is a task; the driver trains nothing; tables are those of a run without Ray."""
    from ray.cluster_utils import Cluster

    alone = Clone(zoo, tmp_path / "alone")
    alone.run("python -m minet zoo --jobs 2")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        log = (tmp_path / "said").open("w+")
        driver = subprocess.Popen(
            ["python", "-m", "minet", "zoo", "--ray", cluster.address, "--row-cores", "1"],
            cwd=zoo.folder, stdout=log, stderr=subprocess.STDOUT, env=zoo.environment(),
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while not (working := rows_at_work()):
            assert driver.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        for pid in working:  # what a dead machine would have taken with it
            if not Path(f"/proc/{pid}").exists():
                continue
            os.kill(pid, signal.SIGKILL)
        assert driver.wait(timeout=400) == 0, Path(log.name).read_text()
    finally:
        cluster.shutdown()
    said = Path(log.name).read_text()
    for row in ROWS:
        assert re.search(rf"^{row}-0: done in", said, re.MULTILINE), said
    assert trained(said) == []
    assert {name: path.read_bytes() for name, path in tables(zoo)} == {
        name: path.read_bytes() for name, path in tables(alone)
    }
    assert zoo.run("python -m minet zoo --jobs 2").count("Running stage") == 0


def tables(project: Project) -> list[tuple[str, Path]]:
    return [(name, project.folder / "zoo" / name) for name in ("comparison.json", "table.md")]
