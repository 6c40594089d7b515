"""A tiny data set, and real processes of `stages.train` on it for tests to kill and compare."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import yaml
from PIL import Image

from minet.beton.config import BetonRunSettings
from minet.beton.writer import write_beton
from minet.core.files import digest, write_csv, write_json
from minet.core.settings import parse
from minet.params import Params
from stages.resolve import stage_settings
from tests.helpers.tree import ROOT

IMAGE_SIZE = 32
CLASSES = 4
COUNTS = {"train": 149, "val": 37}  # with batches of 12, a last one of 5


def make_data(folder: Path, storage: str = "raw") -> None:
    """Write betons of small images whose class is their colour, and training's other inputs."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        rows = []
        for number in range(count):
            label = number % CLASSES
            pixels = rng.integers(0, 120, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
            pixels[..., label % 3] += np.uint8(40 + 60 * (label // 3))
            file = folder / f"{split}{number}.png"
            Image.fromarray(pixels).save(file)
            xxh3 = digest(file.read_bytes()).hex()
            rows.append({"path": file.name, "label": str(label), "xxh3": xxh3})
        sizes = {"resize_px": IMAGE_SIZE, "crop_px": IMAGE_SIZE, "jpeg_quality": 90}
        run = BetonRunSettings.model_validate(sizes | {"root": str(folder), "storage": storage})
        path = folder / f"{split}.beton"
        record = write_beton(path, rows, run, workers=1, progress=lambda items, _: items)
        write_json(path.with_suffix(".json"), record)
    write_csv(folder / "classes.csv", ("label", "name"), enumerate("abcd"[:CLASSES]))
    (folder / "initial.safetensors").write_bytes(safetensors.serialize({}))


def run_settings(
    model: str, *, arguments: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return what `resolve` writes for `train`, with the changes under `train`.

    `arguments` are changes of the model's arguments.
    """
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["model"] = model
    raw["models"][model].pop("recipe", None)
    raw["models"][model] |= arguments or {}
    tiny = {"epochs": 3, "batch_size": 12, "input_px": 32, "warmup_epochs": 0.5}
    raw["train"] |= tiny | changes
    settings = stage_settings(parse(Params, raw)).train
    return settings.model_dump(mode="json")


@dataclass(frozen=True)
class TinyRun:
    """One run in its own folder, which may be started repeatedly."""

    data: Path
    out: Path
    settings: dict[str, Any]

    def command(self) -> list[str]:
        """Return the arguments of `python`, as dvc.yaml has them."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / "settings.json", self.settings)
        data = {name: self.data / name for name in ("train.beton", "val.beton", "classes.csv")}
        paths = {
            "settings": self.out / "settings.json",
            "classes": data["classes.csv"],
            "initial": self.data / "initial.safetensors",
            "train": data["train.beton"],
            "val": data["val.beton"],
            "weights": self.out / "model.safetensors",
            "metadata": self.out / "model.json",
            "history": self.out / "history.csv",
            "metrics": self.out / "metrics.json",
            "speed": self.out / "speed.json",
        }
        return ["-m", "stages.train", *(f"--{name}={path}" for name, path in paths.items())]

    def start(self, *launcher: str, **environment: str) -> subprocess.Popen[str]:
        """Start it in its own process group, by Python or by a launcher; its output is captured.

        One thread each: two that wait for each other are very slow when a third process takes a
        core.
        """
        return subprocess.Popen(
            [*(launcher or (sys.executable,)), *self.command()],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DVC_ROOT": str(self.out), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def running(self, *launcher: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start it, and kill all its processes at the end."""
        with self.start(*launcher, **environment) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def finish(self, *launcher: str, code: int = 0, **environment: str) -> str:
        """Run it to its end, assert its exit code; return its output."""
        with self.running(*launcher, **environment) as process:
            output, _ = process.communicate(timeout=300)
        assert process.returncode == code, output
        assert "Warning" not in output
        return output

    def results(self) -> dict[str, bytes]:
        """Return the bytes of all outputs that must not depend on interruptions."""
        names = ("model.safetensors", "model.json", "history.csv", "metrics.json")
        return {name: (self.out / name).read_bytes() for name in names}

    def record(self, name: str) -> dict[str, Any]:
        """Return a JSON record that it wrote."""
        return dict(json.loads((self.out / f"{name}.json").read_text()))

    def history(self) -> np.ndarray:
        """Return the numbers of its history, (epochs, columns)."""
        return np.loadtxt(self.out / "history.csv", delimiter=",", skiprows=1, ndmin=2)
