"""The zoo with the real DVC and three tiny rows: repeated runs, kills, what a change reruns."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.project import Zoo, ran

RUN = "python -m minet zoo --jobs 2"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Return a zoo of three rows that has run once from scratch."""
    made = Zoo(tmp_path_factory.mktemp("zoo") / "minet")
    output = made.run(RUN)
    for row in made.rows:
        assert f"{row}-0: done in" in output
    made.run("git add -A && git commit -q -m results")
    return made


def row_stages(output: str) -> set[str]:
    """Return the stages of rows among those that DVC ran."""
    return {stage for stage in ran(output) if stage.startswith(("train@", "evaluate@", "cost@"))}


def logs(zoo: Zoo) -> str:
    return "".join(path.read_text() for path in (zoo.folder / "zoo/logs").glob("*.log"))


def test_a_run_writes_the_tables_and_the_page(zoo: Zoo) -> None:
    record = json.loads((zoo.folder / "zoo/comparison.json").read_text())
    assert list(record["rows"]) == list(zoo.rows)
    assert record["rows"]["r003_cool"]["comparison"]["row"] == "r003_cnn3"
    assert record["rows"]["r002_resnet18"]["classes"] == 5
    assert "`r003_cool`" in (zoo.folder / "zoo/table.md").read_text()
    page = (zoo.folder / "zoo/report.html").read_text()
    assert all(f'id="row-{row}"' in page for row in zoo.rows)
    submission = (zoo.folder / "zoo/runs/r002_resnet18/0/submission.csv").read_text().splitlines()
    assert len(submission) == 11


def test_the_cost_columns_are_those_of_the_cost_records(zoo: Zoo) -> None:
    table = (zoo.folder / "zoo/table.md").read_text()
    for row in zoo.rows:
        cost = json.loads((zoo.folder / f"zoo/cost/{row}.json").read_text())
        (line,) = re.findall(rf"^\| `{row}` \|.*\|$", table, re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[-2:] == [f"{cost['parameters']:,}", f"{cost['macs'] / 1e6:.1f}"]


def test_a_second_run_does_nothing(zoo: Zoo) -> None:
    before = zoo.tables()
    assert ran(zoo.run(RUN)) == []
    assert zoo.tables() == before
    assert zoo.run("git status --porcelain") == ""


def test_a_row_trained_by_hand_has_the_same_weights(zoo: Zoo) -> None:
    """Without the environment that `make zoo` sets; the outputs are outside DVC, ignored by git."""
    inputs, folder = "zoo/inputs/r003_cool", zoo.folder / "zoo/checkpoints/by_hand"
    folder.mkdir()
    names = ("weights", "metadata", "history", "metrics", "speed")
    paths = " ".join(f"--{name} zoo/checkpoints/by_hand/{name}" for name in names)
    train = f"python -m stages.train @{inputs}/train.args --settings {inputs}/train-0.json {paths}"
    zoo.run(train, OMP_NUM_THREADS="2")  # two threads would change the weights
    weights = zoo.folder / "zoo/checkpoints/r003_cool-0.safetensors"
    assert (folder / "weights").read_bytes() == weights.read_bytes()
    assert json.loads((folder / "speed").read_text())["threads"] == 1


def test_a_change_of_a_model_s_code_reruns_its_rows_only(zoo: Zoo) -> None:
    source = zoo.folder / "minet/models/cool.py"
    before = source.read_text()
    source.write_text(before + "\n# a comment\n")
    for log in (zoo.folder / "zoo/logs").glob("*.log"):
        log.unlink()
    output = zoo.run(f"{RUN} --rows r002_resnet18")  # the named rows only
    assert not row_stages(output)
    assert not list((zoo.folder / "zoo/logs").glob("*.log"))
    assert "Budget smoke: seconds a row" in output
    assert re.search(r"^row +r002_resnet18$", output, re.MULTILINE)
    assert "r003_" not in output, "DVC checked a row that was not asked for"
    output = zoo.run(RUN)
    assert {path.stem for path in (zoo.folder / "zoo/logs").glob("*.log")} == {"r003_cool-0"}
    expected = {"train@r003_cool-0", "evaluate@r003_cool-0", "cost@r003_cool"}
    # the weights are the same bytes, so that what depends on them only may come from the cache
    assert {"train@r003_cool-0", "cost@r003_cool"} <= row_stages(logs(zoo)) <= expected
    assert not row_stages(output)
    source.write_text(before)
    zoo.run("git checkout -q . && dvc --cd zoo checkout -q")


@pytest.mark.slow
def test_an_experiment_trains_the_row_that_it_changes(zoo: Zoo) -> None:
    """Also in a temporary folder, to which the images of the main pipeline are copied."""
    value = "rows.r003_cool.train.label_smoothing"
    copies = "-C ../data/beton -C ../data/index"
    expected = {"train@r003_cool-0", "evaluate@r003_cool-0"}
    assert row_stages(zoo.run(f"cd zoo && dvc exp run -S +{value}=0.1")) == expected
    assert row_stages(zoo.run(f"cd zoo && dvc exp run --temp {copies} -S {value}=0.2")) == expected
    zoo.run("git checkout -q . && dvc --cd zoo checkout -q")
    assert ran(zoo.run(RUN)) == []
    assert not list((zoo.folder / "zoo/.resume").iterdir()), "a snapshot is left after its run"


@pytest.mark.slow
def test_after_a_change_is_undone_the_results_are_the_committed_ones(zoo: Zoo) -> None:
    source = zoo.folder / "minet/models/cool.py"
    before = source.read_text()
    source.write_text(before + "\n# a comment\n")
    zoo.run(RUN)
    source.write_text(before)
    zoo.run(RUN)
    assert zoo.run("git status --porcelain") == ""


@pytest.mark.slow
def test_a_run_killed_while_rows_train_ends_with_the_same_tables(zoo: Zoo, tmp_path: Path) -> None:
    """SIGKILL ends all of its processes in the middle of a row."""
    other = Zoo(tmp_path / "minet")
    with other.running(f"exec {RUN}") as process:
        deadline = time.monotonic() + 300
        while not list((other.folder / "zoo/runs").glob("*/0/train.json")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    output = other.run(RUN)
    assert not {"sample@five_512", "index@five_512"} & set(ran(output)), "a stage ran again"
    assert other.tables() == zoo.tables()
    assert not other.partials()
    assert ran(other.run(RUN)) == []


@pytest.mark.slow
def test_a_row_that_fails_is_reported_after_the_others_have_run(zoo: Zoo) -> None:
    settings = zoo.params("zoo/params.yaml")
    settings["rows"]["r003_cool"]["train"] = {"lr": 1e30}
    settings["rows"]["r002_resnet18"]["train"] = {"epochs": 2, "lr": 0.0005}
    committed = (zoo.folder / "zoo/params.yaml").read_text()
    zoo.write_params(settings, "zoo/params.yaml")
    before = zoo.tables()
    output = zoo.run(RUN, code=1)
    assert re.search(r"r003_cool-0: failed, see zoo/logs/r003_cool-0.log", output)
    assert "r002_resnet18-0: done in" in output
    assert "error: r003_cool-0: see zoo/logs/r003_cool-0.log" in output
    assert "Traceback" not in output
    assert zoo.tables() == before, "a table lacks one of its rows"
    (zoo.folder / "zoo/params.yaml").write_text(committed)
    zoo.run(RUN)
    assert zoo.tables() == before
