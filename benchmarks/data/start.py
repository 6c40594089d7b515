"""Start-up times: to the end of the first step of `stages.train`, and of each stage's imports."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import safetensors

from benchmarks.peers.betons import index_rows, write
from benchmarks.processes import ROOT, FailedError, run_module
from minet.core.cli import workers
from minet.core.files import write_csv, write_json
from minet.models.registry import MODELS
from minet.params import check_params, read_yaml
from stages.resolve import stage_settings

HEAVY = ("torch", "torchvision", "ffcv", "numba", "matplotlib", "pandas", "sklearn", "dvc")
_CLASSES, _TRAIN, _VAL = 10, 600, 200
_TIMEOUT_S = 300.0


def start(photos: Path, repeats: int) -> dict[str, Any]:
    """Return both times, `repeats` of each, in seconds; {"failed": reason} if training fails."""
    folder = photos.parent / "start"
    folder.mkdir()
    arguments = _inputs(photos, folder)
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
    first: list[float] = []
    imports: dict[str, Any] = {name: {"seconds": []} for name in ("nothing", *stages)}
    for _ in range(repeats):
        try:
            first.append(_first_step(arguments))
        except FailedError as error:
            return {"failed": str(error)}
        for name, result in imports.items():
            seconds, heavy = _import(None if name == "nothing" else f"stages.{name}")
            result["seconds"].append(seconds)
            result["imports"] = heavy
    text = ", ".join(f"{seconds:.1f}" for seconds in first)
    print(f"start: first step after {text} s", flush=True)
    return {
        "first_step_s": first,
        "model": "resnet18",
        "input_px": 64,
        "train": _TRAIN,
        "val": _VAL,
        "stages": imports,
    }


def _inputs(photos: Path, folder: Path) -> list[str]:
    """Write the input files of stage `train`, with the committed settings; return its arguments."""
    params, problems = check_params(read_yaml(ROOT / "params.yaml"), MODELS)
    if params is None:
        raise ValueError("; ".join(problems))
    params = params.model_copy(update={"model": "resnet18"})
    write_json(folder / "settings.json", stage_settings(params).train.model_dump(mode="json"))
    names = [(label, f"class {label}") for label in range(_CLASSES)]
    write_csv(folder / "classes.csv", ("label", "name"), names)
    (folder / "initial.safetensors").write_bytes(safetensors.serialize({}))
    originals = len(list(photos.glob("*.jpg")))
    for split, count in (("train", _TRAIN), ("val", _VAL)):
        rows = index_rows(photos, originals, count)
        for row in rows:
            row["label"] = str(int(row["label"]) % _CLASSES)
        write(folder / f"{split}.beton", rows, photos, "raw", workers())
    inputs = ("settings.json", "classes.csv", "initial.safetensors", "train.beton", "val.beton")
    outputs = ("weights.safetensors", "metadata.json", "history.csv", "metrics.json", "speed.json")
    files = [folder / name for name in (*inputs, *outputs)]
    return [part for file in files for part in (f"--{file.stem}", str(file))]


def _first_step(arguments: list[str]) -> float:
    """Return the seconds from the start of the process to the end of its first step."""
    started = time.time()
    output = run_module(["benchmarks.data.first_step", *arguments], _TIMEOUT_S)
    return float(output.rsplit("first step ended at ", 1)[1]) - started


def _import(module: str | None) -> tuple[float, list[str]]:
    """Import a module in a new process; return its seconds, and which of HEAVY it imported."""
    code = f"import sys, json\n{f'import {module}' if module else ''}\n"
    code += f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    started = time.perf_counter()
    process = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - started, json.loads(process.stdout)
