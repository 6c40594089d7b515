"""Whole stages, run as DVC runs them but without DVC."""

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
from tests.helpers.fork_server import ForkServer
from tests.helpers.stage import call_stage
from tests.helpers.tiny_run import COUNTS, TinyRun, make_data, run_settings


def run_stage(name: str, *, code: int = 0, **paths: Path) -> str:
    """Run a stage, assert its exit code, return its standard error."""
    done = call_stage(name, *(f"--{option}={path}" for option, path in paths.items()))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_plots_accept_any_class_names(tmp_path: Path) -> None:
    """001 is not 1, and NA is a name."""
    names = ("001", "1", "NA")
    rows = [(f"{k}.jpg", k, (k + 1) % 3, 0.9) for k in range(3)]
    write_csv(tmp_path / "p.csv", ("path", "label", "predicted", "probability"), rows)
    write_csv(tmp_path / "k.csv", ("label", "name"), enumerate(names))
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
    write_csv(tmp_path / "h.csv", columns, [(0, 1.0, 0.5, 1.0, 0.5, 0.1)])
    write_json(tmp_path / "t.json", {"best_epoch": 0})
    write_json(tmp_path / "model.json", {"model": "cnn3"})
    record = {"accuracy": 0.0, "accuracy_low": 0.0, "accuracy_high": 0.5}
    write_json(tmp_path / "c.json", {"RGB": record})
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "m.npz", indices=np.arange(3), pictures=pictures, channel_mode="zero")
    paths = {"train": "t.json", "history": "h.csv", "predictions": "p.csv", "classes": "k.csv"}
    paths |= {"channels": "c.json", "mistakes": "m.npz", "out": "plots", "metadata": "model.json"}
    run_stage("plots", **{name: tmp_path / file for name, file in paths.items()})
    files = {path.name for path in (tmp_path / "plots").iterdir()}
    figures = {"curves.png", "confusion.png", "channels.png", "mistakes.png"}
    tables = {"curves", "confusion", "confused_pairs", "recall", "channel_sets"}
    assert files == figures | {f"{name}.csv" for name in tables}
    rows = {name: read_csv(tmp_path / f"plots/{name}.csv") for name in tables}
    assert {row["model"] for table in rows.values() for row in table} == {"cnn3"}
    assert {row["name"] for row in rows["recall"]} == set(names)
    assert {(row["true"], row["predicted"]) for row in rows["confused_pairs"]} == {
        ("001", "1"), ("1", "NA"), ("NA", "001")
    }  # fmt: skip


def test_workers_are_as_many_as_the_cores_that_the_process_may_use(root: Path) -> None:
    """On a shared machine a job has some of the cores, and more threads would only wait."""
    code = """
import os, sys
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:int(sys.argv[1])]))
from minet.core.cli import workers
print(workers())
"""
    for cores in {1, len(os.sched_getaffinity(0))}:
        command = [sys.executable, "-c", code, str(cores)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        least = min(cores, 1)  # a container may be limited to fewer cores than it has
        assert least <= int(done.stdout) <= cores


# --- input channels of a model ----------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny data set, with the list of its validation images."""
    folder = tmp_path_factory.mktemp("tiny")
    make_data(folder)
    rows = [(f"{number}.png", number % 4) for number in range(COUNTS["val"])]
    write_csv(folder / "val.csv", ("path", "label"), rows)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory, forked: ForkServer):
    """Return a function that trains a model of RUNS for two epochs, each once."""
    runs: dict[str, TinyRun] = {}

    def train(name: str) -> TinyRun:
        if name not in runs:
            model, changes = RUNS[name]
            settings = run_settings(model, **{"epochs": 2, "lr": 0.01} | changes)
            runs[name] = TinyRun(data, tmp_path_factory.mktemp(name), settings)
            forked.finish(runs[name])
        return runs[name]

    return train


KNOWN_BUGS = {"wrap_pixels": True, "random_test_crop": True, "shuffle_validation": 0.5}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("cnn3", {}),
    "two": ("cnn3", {"channels": "GB", "channel_mode": "slice", "arguments": {"channels": 2}}),
    "zeroed": ("cnn3", {"channels": "GB"}),
    "any": ("pool_attention", {}),
    "bugs": ("cnn3", {"compat": KNOWN_BUGS, "lr": 1e-4}),  # inputs go up to 255
}
OUTPUTS = {
    **{name: f"{name}.json" for name in ("metrics", "channels")},
    **{name: f"{name}.csv" for name in ("predictions", "classes", "submission")},
    "mistakes": "mistakes.npz",
}


@pytest.fixture
def evaluate(trained, tmp_path: Path, raw_params: dict[str, Any]):
    """Return a function that evaluates a model of RUNS on the validation split.

    It returns the folder of the outputs and the standard error.
    """

    def evaluate_run(name: str, *, code: int = 0, **changes: Any) -> tuple[Path, str]:
        run, out = trained(name), tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        write_json(out / "settings.json", raw_params["evaluate"] | changes)
        paths = {"settings": out / "settings.json", "weights": run.out / "model.safetensors"}
        paths |= {"metadata": run.out / "model.json", "test": run.data / "val.beton"}
        paths |= {"index": run.data / "val.csv"}
        paths |= {name: out / file for name, file in OUTPUTS.items()}
        return out, run_stage("evaluate", code=code, **paths)

    return evaluate_run


ALL_SETS = ["RGB", "RG", "GB", "RB", "R", "G", "B"]


@pytest.mark.parametrize(
    ("name", "changes", "sets", "own"),
    [
        ("plain", {}, ALL_SETS, "RGB"),
        ("two", {"missing_channels": "slice"}, ["GB"], "GB"),
        ("zeroed", {"missing_channels": "slice"}, ALL_SETS, "GB"),
        ("any", {"missing_channels": "slice"}, ALL_SETS, "RGB"),
    ],
)
def test_a_model_is_evaluated_on_the_channels_of_its_metadata(
    evaluate, trained, *, name: str, changes: dict[str, Any], sets: list[str], own: str
) -> None:
    """Its metrics are those of its own set: on the validation split, those of validation."""
    out, _ = evaluate(name, **changes)
    channels = read_json(out / "channels.json")
    assert sorted(channels) == sorted(sets)
    metrics, expected = read_json(out / "metrics.json"), trained(name).record("metrics")
    assert metrics["accuracy"] == channels[own]["accuracy"] == expected["val_accuracy"]
    assert metrics["loss"] == pytest.approx(expected["val_loss"], abs=1e-6)
    rows = read_csv(out / "predictions.csv")
    correct = sum(row["label"] == row["predicted"] for row in rows)
    assert metrics["accuracy"] == correct / COUNTS["val"]
    assert "channel_shuffle" not in metrics


def test_a_model_of_three_channels_cannot_be_tested_on_fewer(evaluate) -> None:
    out, errors = evaluate("plain", code=1, missing_channels="slice")
    assert errors == "error: cnn3 takes images of 3 channels, not 2\n"
    assert [path.name for path in out.iterdir()] == ["settings.json"]


def test_channel_shuffle_is_in_the_metrics_and_does_not_depend_on_the_batch_size(evaluate) -> None:
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
    assert metrics[0]["accuracy"] > metrics[1]["accuracy"], "classes are colors"
    assert metrics[1]["loss"] == pytest.approx(metrics[2]["loss"], abs=1e-6)
    first, second = (read_csv(out / "predictions.csv") for out in (shuffled, again))
    assert [row["predicted"] for row in first] == [row["predicted"] for row in second]


def test_known_bugs_are_in_the_metadata_and_the_metrics_and_are_replicated(
    evaluate, trained
) -> None:
    """Test images are cropped, differently from those of validation, but the same in each run."""
    run = trained("bugs")
    metadata, metrics = run.record("model"), run.record("metrics")
    assert metrics["extras"] == {"compat": KNOWN_BUGS}
    assert metadata["wrap_pixels"] is True
    (one, _), (other, _) = evaluate("bugs"), evaluate("bugs")
    for file in OUTPUTS.values():
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    changed = json.loads((run.out / "model.json").read_text())
    changed["settings"]["train"]["compat"]["random_test_crop"] = False
    (run.out / "model.json").write_text(json.dumps(changed))
    (uncropped, _) = evaluate("bugs")
    (run.out / "model.json").write_text(json.dumps(metadata))
    loss, plain_loss = (read_json(out / "metrics.json")["loss"] for out in (one, uncropped))
    assert abs(loss - plain_loss) > 1e-4
    assert abs(loss - metrics["val_loss"]) > 1e-4


def test_the_metadata_has_the_input_of_the_model(trained) -> None:
    keys = ("channels", "channel_mode", "wrap_pixels")
    inputs = {name: [trained(name).record("model")[key] for key in keys] for name in RUNS}
    assert inputs == {
        "plain": ["RGB", "zero", False],
        "two": ["GB", "slice", False],
        "zeroed": ["GB", "zero", False],
        "any": ["RGB", "zero", False],
        "bugs": ["RGB", "zero", True],
    }
    extras = {name: trained(name).record("metrics").get("extras") for name in ("plain", "two")}
    assert extras == {"plain": None, "two": {"channels": "GB", "channel_mode": "slice"}}


def test_a_stopped_run_with_augmented_validation_resumes_with_the_same_bytes(
    data: Path, tmp_path: Path, forked: ForkServer
) -> None:
    """Weights, metadata, metrics and history; channels and crops are drawn again each epoch."""
    changes: dict[str, Any] = {"epochs": 12, "save_every_s": 0.05, "compat": KNOWN_BUGS}
    changes["lr"] = 1e-4
    changes["augment"] = {"channel_dropout": 0.5}
    uninterrupted, stopped = (
        TinyRun(data, tmp_path / name, run_settings("cnn3", **changes)) for name in "ab"
    )
    forked.finish(uninterrupted)
    with stopped.running() as process:
        deadline = time.monotonic() + 60
        while not (stopped.out / "history.csv").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "resumed at" in forked.finish(stopped)
    assert stopped.results() == uninterrupted.results()
    assert len(set(uninterrupted.history()[:, 3])) == 12


@pytest.mark.parametrize(("channels", "parameters"), [(2, 184_658), (1, 184_370)])
def test_the_cost_is_that_of_the_input_channels_of_the_model(
    tmp_path: Path, channels: int, parameters: int
) -> None:
    """The checkpoints of report 003 have these shapes."""
    write_csv(tmp_path / "k.csv", ("label", "name"), [(k, f"k{k}") for k in range(50)])
    settings = {"model": "cnn3", "builder": "minet.models.cnn3:cnn3", "input_px": 64}
    settings |= {"arguments": {"channels": channels}, "channels": channels}
    write_json(tmp_path / "s.json", settings)
    paths = {"settings": "s.json", "classes": "k.csv", "metrics": "m.json"}
    run_stage("cost", **{name: tmp_path / file for name, file in paths.items()})
    record = read_json(tmp_path / "m.json")
    assert record["parameters"] == parameters
    model = build("cnn3", num_classes=50, channels=channels)
    expected = count_costs(model, channels=channels, image_size=64)
    assert {name: record[name] for name in expected} == json.loads(json.dumps(expected))


def test_an_unused_sample_is_an_empty_folder(tmp_path: Path) -> None:
    settings = {"classes": 2, "train": 2, "val": 2, "test": 2, "seed": 0, "drawn": False}
    write_json(tmp_path / "s.json", {"resolved": settings})
    run_stage("sample", settings=tmp_path / "s.json", out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def record_files(folder: Path, model: str, accuracy: float) -> dict[str, Path]:
    """Write the records of a run from which the table of models is made; return their paths."""
    interval = {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": 1.0}
    records: dict[str, dict[str, Any]] = {
        "test": {**interval, "top5": 1.0, "loss": 0.5, "macro_f1": 0.25, "count": 8},
        "train": {"best_epoch": 3, "val_accuracy": 0.625, "train_loss": 0.1},
        "cost": {"parameters": 10, "macs": 30, "flops": 60},
        "speed": {"model": model, "epoch_s_median": 1.5, "device": "cpu"},
    }
    paths = {name: folder / f"{model}-{name}.json" for name in records}
    for name, record in records.items():
        write_json(paths[name], record)
    return paths


def test_publish_writes_eight_metrics_and_a_table_of_the_models_that_were_trained(
    tmp_path: Path,
) -> None:
    """In the order of params.yaml, the chosen model first; a score that is not named is left."""
    for name, accuracy in (("rrdb", 0.75), ("cool", 0.5), ("cnn3", 0.25)):
        out = tmp_path / "scores" / f"{name}.json"
        run_stage("score", **record_files(tmp_path, name, accuracy), out=out)
    write_json(tmp_path / "s.json", {"resolved": {"models": ["resnet18", "rrdb", "cnn3"]}})
    run_stage(
        "publish",
        settings=tmp_path / "s.json",
        **record_files(tmp_path, "resnet18", 0.875),
        scores=tmp_path / "scores",
        metrics=tmp_path / "m.json",
        table=tmp_path / "t.csv",
    )
    metrics = read_json(tmp_path / "m.json")
    assert metrics == {
        "accuracy": 0.875, "accuracy_low": 0.775, "accuracy_high": 1.0, "macro_f1": 0.25,
        "loss": 0.5, "val_accuracy": 0.625, "parameters": 10, "macs": 30,
    }  # fmt: skip
    rows = read_csv(tmp_path / "t.csv")
    assert [(row["model"], row["accuracy"]) for row in rows] == [
        *(("resnet18", "0.875"), ("rrdb", "0.75"), ("cnn3", "0.25"))
    ]
    assert list(rows[0]) == ["model", *metrics, "epoch_s"]
    assert rows[1]["epoch_s"] == "1.5"


HEAVY = {"torch", "torchvision", "matplotlib", "numba", "sklearn", "pandas", "cv2", "ffcv", "dvc"}
IMPORTS = {
    "sample": set(),
    "resolve": {"torch"},
    "index": {"matplotlib", "pandas"},
    "beton": {"numba"},
    "weights": set(),
    "train": {"torch"},
    "evaluate": {"torch", "sklearn", "pandas"},
    "cost": {"torch"},
    "plots": {"matplotlib", "pandas"},
    "settings": set(),
    "score": set(),
    "publish": set(),
}


@pytest.mark.parametrize("stage", IMPORTS)
def test_a_stage_imports_no_heavy_library_that_it_does_not_need(root: Path, stage: str) -> None:
    """Torch and torchvision take a second each, FFCV three; scikit-learn imports pandas."""
    code = f"import sys, stages.{stage}; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == IMPORTS[stage]


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_an_invalid_number_of_workers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setitem(os.environ, "MINET_WORKERS", value)
    write_json(tmp_path / "s.json", {"classes": 2, "train": 2, "val": 2, "test": 2, "seed": 0})
    errors = run_stage("sample", code=1, settings=tmp_path / "s.json", out=tmp_path / "out")
    assert errors == f"error: MINET_WORKERS is {value!r}; must be a positive integer\n"
    assert not (tmp_path / "out").exists()
