"""What only a whole stage can get wrong, run as DVC runs it; no DVC."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minet.core.files import read_csv, read_json, write_csv, write_json
from minet.cost.counter import count_costs
from minet.models.registry import build
from tests.helpers.tiny_run import COUNTS, TinyRun, make_data, run_settings


def run_stage(root: Path, name: str, *, code: int = 0, **paths: Path) -> str:
    """Run a stage, assert its exit code, return what it said on standard error."""
    arguments = [f"--{option}={path}" for option, path in paths.items()]
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_plots_take_the_names_of_classes_as_they_are(root: Path, tmp_path: Path) -> None:
    """001 is not 1, and NA is a name."""
    names = ("001", "1", "NA")
    rows = [(f"{k}.jpg", k, (k + 1) % 3, 0.9) for k in range(3)]
    write_csv(tmp_path / "p.csv", ("path", "label", "predicted", "probability"), rows)
    write_csv(tmp_path / "k.csv", ("label", "name"), enumerate(names))
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
    write_csv(tmp_path / "h.csv", columns, [(0, 1.0, 0.5, 1.0, 0.5, 0.1)])
    write_json(tmp_path / "t.json", {"best_epoch": 0})
    record = {"accuracy": 0.0, "accuracy_low": 0.0, "accuracy_high": 0.5}
    write_json(tmp_path / "c.json", {"RGB": record})
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "m.npz", places=np.arange(3), pictures=pictures, channel_mode="zero")
    paths = {"train": "t.json", "history": "h.csv", "predictions": "p.csv", "classes": "k.csv"}
    paths |= {"channels": "c.json", "mistakes": "m.npz", "out": "plots"}
    run_stage(root, "plots", **{name: tmp_path / file for name, file in paths.items()})
    made = {path.name for path in (tmp_path / "plots").iterdir()}
    assert made == {"curves.png", "confusion.png", "channels.png", "mistakes.png"}


def test_threads_are_as_many_as_the_cores_that_this_process_may_use(root: Path) -> None:
    """On a shared machine a job owns some of the cores, and more threads would only wait."""
    code = """
import os, sys
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:int(sys.argv[1])]))
from minet.core.cli import workers
print(workers())
"""
    for cores in {1, len(os.sched_getaffinity(0))}:
        command = [sys.executable, "-c", code, str(cores)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        least = min(cores, 1)  # a container may be allowed fewer than it has
        assert least <= int(done.stdout) <= cores


# --- planes that a model is given -------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny data set, with the list of its validation images."""
    folder = tmp_path_factory.mktemp("tiny")
    make_data(folder)
    rows = [(f"{number}.png", number % 4) for number in range(COUNTS["val"])]
    write_csv(folder / "val.csv", ("path", "label"), rows)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Give models that were trained for an epoch or two, each once."""
    runs: dict[str, TinyRun] = {}

    def train(name: str) -> TinyRun:
        if name not in runs:
            model, changes = RUNS[name]
            settings = run_settings(model, **{"epochs": 2, "lr": 0.01} | changes)
            runs[name] = TinyRun(data, tmp_path_factory.mktemp(name), settings)
            runs[name].finish()
        return runs[name]

    return train


SLIPS = {"wrap_pixels": True, "random_test_crop": True, "shuffle_validation": 0.5}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("cnn3", {}),
    "two": ("cnn3", {"channels": "GB", "channel_mode": "slice", "arguments": {"channels": 2}}),
    "black": ("cnn3", {"channels": "GB"}),
    "any": ("pool_attention", {}),
    "slips": ("cnn3", {"compat": SLIPS, "lr": 1e-4}),  # inputs go to 255
}
OUTPUTS = {
    **{name: f"{name}.json" for name in ("metrics", "channels")},
    **{name: f"{name}.csv" for name in ("predictions", "classes", "bars", "submission")},
    "mistakes": "mistakes.npz",
}


@pytest.fixture
def evaluate(root: Path, trained, tmp_path: Path, raw_params: dict[str, Any]):
    """Score a trained model on the validation split with changes of `evaluate`; give a folder."""

    def score(name: str, *, code: int = 0, **changes: Any) -> tuple[Path, str]:
        run, out = trained(name), tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        write_json(out / "settings.json", raw_params["evaluate"] | changes)
        paths = {"settings": out / "settings.json", "weights": run.out / "model.safetensors"}
        paths |= {"metadata": run.out / "model.json", "test": run.data / "val.beton"}
        paths |= {"index": run.data / "val.csv"}
        paths |= {name: out / file for name, file in OUTPUTS.items()}
        return out, run_stage(root, "evaluate", code=code, **paths)

    return score


SEVEN = ["RGB", "RG", "GB", "RB", "R", "G", "B"]


@pytest.mark.parametrize(
    ("name", "changes", "sets", "own"),
    [
        ("plain", {}, SEVEN, "RGB"),
        ("two", {"missing_channels": "slice"}, ["GB"], "GB"),
        ("black", {"missing_channels": "slice"}, SEVEN, "GB"),
        ("any", {"missing_channels": "slice"}, SEVEN, "RGB"),
    ],
)
def test_a_model_is_scored_on_the_planes_that_its_card_names(
    evaluate, trained, *, name: str, changes: dict[str, Any], sets: list[str], own: str
) -> None:
    """And is judged by its own set: on the split that it was validated on, by the same score."""
    out, _ = evaluate(name, **changes)
    channels = read_json(out / "channels.json")
    assert sorted(channels) == sorted(sets)
    assert sorted(row["channels"] for row in read_csv(out / "bars.csv")) == sorted(sets)
    metrics, known = read_json(out / "metrics.json"), trained(name).record("metrics")
    assert metrics["accuracy"] == channels[own]["accuracy"] == known["val_accuracy"]
    assert metrics["loss"] == pytest.approx(known["val_loss"], abs=1e-6)
    rows = read_csv(out / "predictions.csv")
    hits = sum(row["label"] == row["predicted"] for row in rows)
    assert metrics["accuracy"] == hits / COUNTS["val"]
    assert "channel_shuffle" not in metrics


def test_a_model_of_three_planes_cannot_be_tested_on_fewer(evaluate) -> None:
    out, said = evaluate("plain", code=1, missing_channels="slice")
    assert said == "error: cnn3 takes images of 3 channels, not 2\n"
    assert [path.name for path in out.iterdir()] == ["settings.json"]


def test_shuffled_test_images_are_named_and_the_same_for_any_batch_size(evaluate) -> None:
    (plain, _), (shuffled, _), (again, _) = (
        evaluate("plain", **changes)
        for changes in (
            {},
            {"channel_shuffle": 1.0},
            {"channel_shuffle": 1.0, "batch_size": 7},
        )
    )
    metrics = [read_json(out / "metrics.json") for out in (plain, shuffled, again)]
    assert [record.get("channel_shuffle") for record in metrics] == [None, 1.0, 1.0]
    assert metrics[0]["accuracy"] > metrics[1]["accuracy"], "colours are what the classes are"
    assert metrics[1]["loss"] == pytest.approx(metrics[2]["loss"], abs=1e-6)
    first, second = (read_csv(out / "predictions.csv") for out in (shuffled, again))
    assert [row["predicted"] for row in first] == [row["predicted"] for row in second]


def test_slips_of_the_reports_are_in_the_card_and_the_metrics_and_are_made_again(
    evaluate, trained
) -> None:
    """Test images are cropped, not as those of validation were, but each time alike."""
    run = trained("slips")
    metadata, metrics = run.record("model"), run.record("metrics")
    assert metrics["extras"] == {"compat": SLIPS}
    assert metadata["wrap_pixels"] is True
    (one, _), (other, _) = evaluate("slips"), evaluate("slips")
    for file in OUTPUTS.values():
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    whole = json.loads((run.out / "model.json").read_text())
    whole["settings"]["train"]["compat"]["random_test_crop"] = False
    (run.out / "model.json").write_text(json.dumps(whole))
    (uncropped, _) = evaluate("slips")
    (run.out / "model.json").write_text(json.dumps(metadata))
    found, plain = (read_json(out / "metrics.json")["loss"] for out in (one, uncropped))
    assert abs(found - plain) > 1e-4
    assert abs(found - metrics["val_loss"]) > 1e-4


def test_a_card_says_what_the_model_was_shown(trained) -> None:
    shown = ("channels", "channel_mode", "wrap_pixels")
    found = {name: [trained(name).record("model")[key] for key in shown] for name in RUNS}
    assert found == {
        "plain": ["RGB", "zero", False],
        "two": ["GB", "slice", False],
        "black": ["GB", "zero", False],
        "any": ["RGB", "zero", False],
        "slips": ["RGB", "zero", True],
    }
    extras = {name: trained(name).record("metrics").get("extras") for name in ("plain", "two")}
    assert extras == {"plain": None, "two": {"channels": "GB", "channel_mode": "slice"}}


def test_a_run_that_is_stopped_while_validation_draws_goes_on_by_the_same_bytes(
    data: Path, tmp_path: Path
) -> None:
    """Weights, metadata, metrics and history; planes and crops are drawn anew each epoch."""
    changes: dict[str, Any] = {"epochs": 20, "save_every_s": 0.05, "compat": SLIPS, "lr": 1e-4}
    changes["augment"] = {"channel_dropout": 0.5}
    whole, cut = (TinyRun(data, tmp_path / n, run_settings("cnn3", **changes)) for n in "ab")
    whole.finish()
    with cut.running() as process:
        until = time.monotonic() + 60
        while not (cut.out / "history.csv").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "resumed at" in cut.finish()
    assert cut.results() == whole.results()
    assert len(set(whole.history()[:, 3])) == 20


@pytest.mark.parametrize(("channels", "parameters"), [(2, 184_658), (1, 184_370)])
def test_the_cost_is_that_of_the_planes_that_the_model_is_given(
    root: Path, tmp_path: Path, channels: int, parameters: int
) -> None:
    """Report 003's checkpoints have these shapes."""
    write_csv(tmp_path / "k.csv", ("label", "name"), [(k, f"k{k}") for k in range(50)])
    settings = {"model": "cnn3", "builder": "minet.models.cnn3:cnn3", "input_px": 64}
    settings |= {"arguments": {"channels": channels}, "channels": channels}
    write_json(tmp_path / "s.json", settings)
    paths = {"settings": "s.json", "classes": "k.csv", "metrics": "m.json"}
    run_stage(root, "cost", **{name: tmp_path / file for name, file in paths.items()})
    found = read_json(tmp_path / "m.json")
    assert found["parameters"] == parameters
    model = build("cnn3", num_classes=50, channels=channels)
    known = count_costs(model, channels=channels, image_size=64)
    assert {name: found[name] for name in known} == json.loads(json.dumps(known))


HEAVY = {"torch", "torchvision", "matplotlib", "numba", "sklearn", "pandas", "cv2", "ffcv", "dvc"}
IMPORTS = {
    "sample": set(),
    "resolve": {"torch"},
    "index": {"matplotlib", "pandas"},
    "beton": {"numba"},
    "weights": set(),
    "train": {"torch", "numba"},
    "evaluate": {"torch", "numba", "sklearn", "pandas"},
    "cost": {"torch"},
    "plots": {"matplotlib", "pandas"},
}


@pytest.mark.parametrize("stage", IMPORTS)
def test_a_stage_imports_nothing_heavy_that_it_does_not_need(root: Path, stage: str) -> None:
    """Torch and torchvision take a second each, FFCV three; scikit-learn brings pandas."""
    code = f"import sys, stages.{stage}; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == IMPORTS[stage]


@pytest.mark.parametrize("asked", ["0", "two", "-1", ""])
def test_a_number_of_workers_that_is_none_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setitem(os.environ, "MINET_WORKERS", asked)
    write_json(tmp_path / "s.json", {"classes": 2, "train": 2, "val": 2, "test": 2, "seed": 0})
    said = run_stage(root, "sample", code=1, settings=tmp_path / "s.json", out=tmp_path / "out")
    assert said == f"error: MINET_WORKERS is {asked!r}; must be a whole number from 1\n"
    assert not (tmp_path / "out").exists()
