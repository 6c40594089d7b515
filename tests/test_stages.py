"""What only a whole stage can get wrong, run as DVC runs it; no DVC."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minet.results import write_csv, write_json


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
    np.savez(tmp_path / "m.npz", places=np.arange(3), pictures=pictures)
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
from stages.cli import workers
print(workers())
"""
    for cores in {1, len(os.sched_getaffinity(0))}:
        command = [sys.executable, "-c", code, str(cores)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        least = min(cores, 1)  # a container may be allowed fewer than it has
        assert least <= int(done.stdout) <= cores


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
