"""Seconds an epoch of every model, as its own run's metrics/speed.json has them.

Each model is trained by `stages.train` on the sample of params.yaml, whose betons are made anew.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors

from benchmarks.data.turns import FailedError, run_module
from benchmarks.train.job import params
from minet.core.files import read_json, write_json
from minet.params import Params
from stages.resolve import stage_settings

_SPLITS = ("train", "val")
_WRITTEN = ("weights.safetensors", "metadata.json", "history.csv", "metrics.json", "speed.json")


def epochs(
    folder: Path, models: Sequence[str], count: int, images: int | None, timeout_s: float
) -> dict[str, Any]:
    """Train each model for `count` epochs; give its speed.json, or {"failed": why}.

    `images` of the training split, by default as many as params.yaml says.
    """
    os.environ["DVC_ROOT"] = str(folder)  # where a run keeps its state: not in this tree
    chosen = _settings(folder, count, images)
    _make_betons(folder, chosen, timeout_s)
    (folder / "initial.safetensors").write_bytes(safetensors.serialize({}))
    found: dict[str, Any] = {}
    for model in models:
        found[model] = _speed(folder, chosen.model_copy(update={"model": model}), timeout_s)
        print(f"{model}: {_said(found[model])}", flush=True)
    return found


def _settings(folder: Path, count: int, images: int | None) -> Params:
    """Give params.yaml with the sample as its images, and few epochs."""
    own = params()
    fewer = {} if images is None else {"train": images, "val": images // 4, "test": images // 4}
    train = {"epochs": count, "warmup_epochs": min(own.train.warmup_epochs, count)}
    return own.model_copy(
        update={
            "recipe": "own",
            "sample": own.sample.model_copy(update=fewer),
            "data": own.data.model_copy(
                update={"root": str(folder / "sample"), "layout": "lists"}
                | {split: f"{split}.txt" for split in (*_SPLITS, "test")}
            ),
            "train": own.train.model_copy(update=train),
        }
    )


def _make_betons(folder: Path, chosen: Params, timeout_s: float) -> None:
    """Run the stages before training, with the paths of dvc.yaml in another folder."""
    for name in ("sample", "index", "beton"):
        settings = getattr(stage_settings(chosen), name).model_dump(mode="json")
        write_json(folder / f"settings/{name}.json", settings)
    index = folder / "index"
    _stage(folder, "sample", timeout_s, out=folder / "sample")
    shown = {"metrics": folder / "data.json", "picture": folder / "samples.png"}
    _stage(folder, "index", timeout_s, out=index, **shown)
    for split in _SPLITS:
        beton = {"index": index / f"{split}.csv", "out": folder / f"{split}.beton"}
        _stage(folder, "beton", timeout_s, **beton)


def _speed(folder: Path, chosen: Params, timeout_s: float) -> dict[str, Any]:
    """Train a model; give what it wrote of its speed."""
    write_json(folder / "settings/train.json", stage_settings(chosen).train.model_dump(mode="json"))
    paths = {name.partition(".")[0]: folder / name for name in _WRITTEN}
    paths |= {split: folder / f"{split}.beton" for split in _SPLITS}
    paths |= {"initial": folder / "initial.safetensors", "classes": folder / "index/classes.csv"}
    try:
        _stage(folder, "train", timeout_s, **paths)
    except FailedError as error:
        return {"failed": str(error)}
    return read_json(paths["speed"])


def _stage(folder: Path, name: str, timeout_s: float, **paths: Path) -> None:
    """Run a stage on its settings."""
    given = {"settings": folder / f"settings/{name}.json", **paths}
    arguments = [part for key, path in given.items() for part in (f"--{key}", str(path))]
    run_module([f"stages.{name}", *arguments], timeout_s)


def _said(speed: dict[str, Any]) -> str:
    if "failed" in speed:
        return f"failed: {speed['failed']}"
    return f"{speed['epoch_s_median']:.1f} s an epoch"
