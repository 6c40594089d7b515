"""What `resolve` writes for the stages, beside the mistakes that it reports."""

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from minet.core.files import file_digest, read_json
from minet.core.settings import merge, read_settings
from minet.data.config import SampleRunSettings
from minet.train.config import RunSettings
from tests.helpers.stage import call_stage
from tests.helpers.tree import ROOT

FOLDERS = ("out", "run", "scores")


@pytest.fixture
def resolve(tmp_path: Path, raw_params: dict[str, Any]):
    """Return a function that runs the stage on params.yaml with changes of its sections."""

    def run(*, code: int = 0, **changes: Any) -> CompletedProcess[str]:
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(merge(raw_params, changes)))
        folders = [f"--{name}={tmp_path / name}" for name in FOLDERS]
        inputs = ["--sample=data/sample", "--weights=data/weights"]
        done = call_stage("resolve", f"--params={path}", *inputs, *folders)
        assert done.returncode == code, done.stderr
        return done

    return run


def contents(folder: Path) -> dict[str, str]:
    """Return the text of each file of a folder by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_each_model_gets_the_same_files_whether_chosen_or_trained_beside_it(
    resolve, tmp_path: Path
) -> None:
    """DVC's run cache compares them: a model trained as one is free as the other."""
    resolve(model="resnet18", also=["cnn3", "rrdb"])
    beside = read_json(tmp_path / "out/also/cnn3.json")
    resolve(model="cnn3", also=[])
    assert not (tmp_path / "out/also").exists()
    chosen = {path.stem: read_json(path) for path in (tmp_path / "run").iterdir()}
    assert set(chosen) == {"weights", "train", "runtime", "evaluate", "cost", "code"}
    assert chosen == beside
    assert chosen["code"]["resolved"]["sha256"] == file_digest(ROOT / "minet/models/cnn3.py")


def test_scores_of_models_that_are_trained_no_more_are_deleted(resolve, tmp_path: Path) -> None:
    """`publish` depends on their folder, and a clone would not have them."""
    (tmp_path / "scores").mkdir()
    for name in (".gitkeep", "cnn3.json", "rrdb.json"):
        (tmp_path / "scores" / name).touch()
    resolve(also=["rrdb"], model="cnn3")
    assert set(contents(tmp_path / "scores")) == {".gitkeep", "rrdb.json"}
    models = read_json(tmp_path / "out/publish.json")["resolved"]["models"]
    assert models == ["cnn3", "rrdb"]


RUNTIME = {
    "train.save_every_s": {"train": {"save_every_s": 5.0}},
    "train.tensorboard": {"train": {"tensorboard": True}},
    "train.dvclive": {"train": {"dvclive": True}},
    "train.processes": {"train": {"processes": 2}},
    "data.cache": {"data": {"cache": "stream"}},
}


@pytest.mark.parametrize("key", RUNTIME)
def test_a_setting_that_changes_no_result_changes_only_the_file_that_no_stage_depends_on(
    resolve, tmp_path: Path, key: str
) -> None:
    assert resolve().stdout == ""
    before = {name: contents(tmp_path / name) for name in FOLDERS}
    done = resolve(**RUNTIME[key])
    after = {name: contents(tmp_path / name) for name in FOLDERS}
    assert before["run"].pop("runtime.json") != after["run"].pop("runtime.json")
    assert before == after
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{key} is ")
    assert "no model is trained again for it" in line
    assert resolve(**RUNTIME[key]).stdout == ""


def test_training_reads_its_settings_from_both_files(resolve, tmp_path: Path) -> None:
    resolve(train={"save_every_s": 5.0}, data={"cache": "stream"})
    folder = tmp_path / "run"
    settings = read_settings(folder / "train.json", RunSettings, folder / "runtime.json")
    assert (settings.train.save_every_s, settings.cache) == (5.0, "stream")
    together = merge(settings.record(), settings.runtime())
    assert together == settings.model_dump(mode="json")


def test_a_mistake_changes_no_file(resolve, tmp_path: Path) -> None:
    resolve(also=["cnn3"])
    before = {name: contents(tmp_path / name) for name in FOLDERS}
    done = resolve(
        code=1, also=["resnet34_flatten"], model="cnn3", models={"cnn3": {"channels": 1}}
    )
    assert "does not take batches of 2 x 3 x 64 x 64" in done.stderr
    assert {name: contents(tmp_path / name) for name in FOLDERS} == before


def test_a_model_beside_the_chosen_one_is_tried_too(resolve, tmp_path: Path) -> None:
    done = resolve(code=1, also=["cnn3"], models={"cnn3": {"channels": 1}})
    assert "error: also cnn3: models.cnn3: does not take batches of 2 x 3 x 64" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_sample_is_drawn_only_where_it_is_the_data(resolve, tmp_path: Path) -> None:
    for root, drawn in (("data/sample", True), (str(tmp_path / "mine"), False)):
        for split in ("train", "val", "test"):
            (tmp_path / "mine" / split).mkdir(parents=True, exist_ok=True)
        splits = {split: split for split in ("train", "val", "test")}
        resolve(data={"root": root} | ({} if drawn else {"layout": "folders", **splits}))
        settings = read_settings(tmp_path / "out/sample.json", SampleRunSettings)
        assert settings.drawn is drawn
