"""Seconds per epoch of every model, from the speed.json of its run.

`stages.train` trains each model on the sample of params.yaml, whose betons are written first.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors

from benchmarks.processes import FailedError, run_module
from benchmarks.train.job import params
from minet.core.files import read_json, write_json
from minet.params import DEFAULT_RECIPE, Params
from stages.resolve import stage_settings

_SPLITS = ("train", "val")
_OUTPUTS = ("weights.safetensors", "metadata.json", "history.csv", "metrics.json", "speed.json")


def epochs(
    folder: Path, models: Sequence[str], count: int, images: int | None, timeout_s: float
) -> dict[str, Any]:
    """Train each model for `count` epochs; return its speed.json, or {"failed": reason}.

    `images` is the size of the training split; None: as in params.yaml.
    """
    os.environ["DVC_ROOT"] = str(folder)  # snapshots go there, not into this tree
    settings = _settings(folder, count, images)
    _write_betons(folder, settings, timeout_s)
    (folder / "initial.safetensors").write_bytes(safetensors.serialize({}))
    results: dict[str, Any] = {}
    for model in models:
        results[model] = _speed(folder, settings.model_copy(update={"model": model}), timeout_s)
        print(f"{model}: {_summary(results[model])}", flush=True)
    return results


def _settings(folder: Path, count: int, images: int | None) -> Params:
    """Return the settings of params.yaml with the sample as data, and few epochs."""
    committed = params()
    fewer = {} if images is None else {"train": images, "val": images // 4, "test": images // 4}
    train = {"epochs": count, "warmup_epochs": min(committed.train.warmup_epochs, count)}
    return committed.model_copy(
        update={
            "recipe": DEFAULT_RECIPE,
            "sample": committed.sample.model_copy(update=fewer),
            "data": committed.data.model_copy(
                update={"root": str(folder / "sample"), "layout": "lists"}
                | {split: f"{split}.txt" for split in (*_SPLITS, "test")}
            ),
            "train": committed.train.model_copy(update=train),
        }
    )


def _write_betons(folder: Path, settings: Params, timeout_s: float) -> None:
    """Run stages `sample`, `index` and `beton` in the folder."""
    for name in ("sample", "index", "beton"):
        stage = getattr(stage_settings(settings), name)
        write_json(folder / f"settings/{name}.json", stage.model_dump(mode="json"))
    index = folder / "index"
    _stage(folder, "sample", timeout_s, out=folder / "sample")
    extra = {"metrics": folder / "data.json", "picture": folder / "samples.png"}
    _stage(folder, "index", timeout_s, out=index, **extra)
    for split in _SPLITS:
        beton = {"index": index / f"{split}.csv", "out": folder / f"{split}.beton"}
        _stage(folder, "beton", timeout_s, **beton)


def _speed(folder: Path, settings: Params, timeout_s: float) -> dict[str, Any]:
    """Train a model; return its speed.json, {"failed": reason} if it fails."""
    write_json(
        folder / "settings/train.json", stage_settings(settings).train.model_dump(mode="json")
    )
    paths = {name.partition(".")[0]: folder / name for name in _OUTPUTS}
    paths |= {split: folder / f"{split}.beton" for split in _SPLITS}
    paths |= {"initial": folder / "initial.safetensors", "classes": folder / "index/classes.csv"}
    try:
        _stage(folder, "train", timeout_s, **paths)
    except FailedError as error:
        return {"failed": str(error)}
    return read_json(paths["speed"])


def _stage(folder: Path, name: str, timeout_s: float, **paths: Path) -> None:
    """Run a stage with its settings and the given paths."""
    files = {"settings": folder / f"settings/{name}.json", **paths}
    arguments = [part for key, path in files.items() for part in (f"--{key}", str(path))]
    run_module([f"stages.{name}", *arguments], timeout_s)


def _summary(speed: dict[str, Any]) -> str:
    if "failed" in speed:
        return f"failed: {speed['failed']}"
    return f"{speed['epoch_s_median']:.1f} s per epoch"
