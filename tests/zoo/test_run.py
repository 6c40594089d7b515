"""Running rows: settings checked first, runs by row and seed, duplicates, cancellation."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from minet.core.errors import InputError
from minet.zoo import run as zoo_run
from minet.zoo.targets import Target, by_repository, changed_runs, duplicate_runs
from tests.helpers.tree import ROOT


def target(name: str) -> Target:
    """Return the target of a stage, row and seed: `train@a-0`."""
    parsed = Target.parse(name)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("train@r003_cool-0", Target("train", "r003_cool", 0)),
        ("evaluate@a_50-4294967295", Target("evaluate", "a_50", 2**32 - 1)),
        ("cost@r003_cool_50", Target("cost", "r003_cool_50")),
        ("compare", None),
        ("inputs@r003_cool", None),
        ("beton@five_512-train", None),
        ("train", None),
        ("other/dvc.yaml:train@r003_cool-0", None),
    ],
)
def test_an_address_is_parsed_and_written_again(address: str, expected: Target | None) -> None:
    assert Target.parse(address) == expected
    assert expected is None or str(expected) == address


def test_a_mistake_in_the_settings_is_reported_before_dvc_runs(
    raw_params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = yaml.safe_load((ROOT / "zoo/params.yaml").read_text())
    (tmp_path / "zoo").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params))
    (tmp_path / "zoo/params.yaml").write_text(yaml.safe_dump(raw | {"seeds": 3}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo_run, "_dvc", lambda *_: pytest.fail("DVC was run"))
    for run in (
        lambda: zoo_run.run_zoo(2, 2),
        lambda: zoo_run.run_zoo_on_ray("auto", 1, None),
    ):
        with pytest.raises(InputError, match=r"zoo/params.yaml: seeds is 3; input should be"):
            run()


def test_changed_targets_are_grouped_by_run_and_ordered_by_stage() -> None:
    names = ("cost@a", "evaluate@a-0", "train@a-0", "train@b-1", "cost@c", "compare", "inputs@a")
    assert changed_runs(names) == {
        "a-0": [target(name) for name in ("train@a-0", "evaluate@a-0", "cost@a")],
        "b-1": [target("train@b-1"), target("evaluate@b-1")],
        "c": [target("cost@c")],
    }


def test_paths_are_divided_between_the_repositories() -> None:
    paths = ["zoo/inputs/a", "data/beton/val.json", "zoo/data/b/index/test.csv", "data/a.csv"]
    assert by_repository(paths) == {
        Path(): ["data/a.csv", "data/beton/val.json"],
        Path("zoo"): ["data/b/index/test.csv", "inputs/a"],
    }


def test_runs_with_the_same_settings_are_one_group(tmp_path: Path) -> None:
    for row, text in {"a": "1", "b_c": "2", "d": "1"}.items():
        (tmp_path / row).mkdir()
        (tmp_path / row / "train-0.json").write_text(text)
    runs = {run: [target(f"train@{run}")] for run in ("a-0", "b_c-0", "d-0")}
    runs["e"] = [target("cost@e")]
    assert duplicate_runs(runs, tmp_path) == [["a-0", "d-0"], ["b_c-0"], ["e"]]


def test_after_an_interrupt_the_next_of_a_group_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []

    def interrupted(name: str, *_: object) -> tuple[int, float]:
        started.append(name)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C while the row runs
        time.sleep(0.5)
        return 130, 0.5

    monkeypatch.setattr(zoo_run, "_run", interrupted)
    monkeypatch.setattr(zoo_run, "duplicate_runs", lambda runs: [list(runs)])
    with pytest.raises(KeyboardInterrupt):
        list(zoo_run._run_parallel({"a-0": [], "d-0": []}, 2, {}))
    assert started == ["a-0"]
