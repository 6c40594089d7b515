"""The training loops that are compared: minet's and its alternatives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.common import compiled_graphs
from benchmarks.train import lightning_loop, ours, torch_loops
from benchmarks.train.job import Clock, Job, default_device


@dataclass(frozen=True)
class Competitor:
    """One way to train."""

    train: Callable[[Job, torch.device, Clock], None]
    settings: Mapping[str, str]  # its configuration in words
    gpu_only: bool = False


_FLOAT = "float32 on a CPU"
_NORMALIZED = "float32, normalized"

COMPETITORS = {
    "minet": Competitor(
        ours.train,
        {
            "how": "TrainStep.step on uint8 images, normalized on the device; correct predictions "
            "counted; channels-last, fused SGD, freed memory kept",
            "precision": f"bfloat16 and compiled on a GPU, {_FLOAT}",
        },
    ),
    "minet, augmented": Competitor(
        ours.train_augmented,
        {
            "how": "the same; each image cropped, resized and flipped on the device as in "
            "params.yaml",
            "precision": f"bfloat16 and compiled on a GPU, {_FLOAT}",
        },
    ),
    "torchvision": Competitor(
        torch_loops.train_torchvision,
        {
            "how": "as its classification reference: channels-first, loss and accuracies read "
            "at every step",
            "images": _NORMALIZED,
            "precision": f"float16 and GradScaler on a GPU, {_FLOAT}",
        },
    ),
    "timm": Competitor(
        torch_loops.train_timm,
        {
            "how": "as its script with --channels-last: ClassificationTask, create_optimizer_v2, "
            "loss read every 50 steps",
            "images": _NORMALIZED,
            "precision": f"bfloat16 on a GPU, {_FLOAT}",
        },
    ),
    "timm, compiled": Competitor(
        torch_loops.train_timm_compiled,
        {"how": "the same with --torchcompile", "images": _NORMALIZED, "precision": "bfloat16"},
        gpu_only=True,
    ),
    "Lightning": Competitor(
        lightning_loop.train,
        {
            "how": "Trainer.fit without logger, checkpoints, progress bar; channels-first",
            "images": _NORMALIZED,
            "precision": f"bf16-mixed on a GPU, {_FLOAT}",
        },
    ),
}


def for_device() -> list[str]:
    """Return the names of the competitors that this device can run."""
    gpu = default_device().type == "cuda"
    return [name for name, one in COMPETITORS.items() if gpu or not one.gpu_only]


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train with one competitor; return images and seconds of the repeats, losses of the steps.

    `compiled_graphs` is the number of graphs that torch.compile made.
    """
    job, device = Job(**request["job"]), default_device()
    clock = Clock(job, device)
    COMPETITORS[request["name"]].train(job, device, clock)
    return {
        "images": job.batch_size * job.steps,
        "seconds": clock.seconds(),
        "losses": clock.losses(),
        "compiled_graphs": compiled_graphs(),
    }
