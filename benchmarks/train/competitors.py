"""Who trains: minet, and the loops that people would use instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.train import lightning_loop, ours, torch_loops
from benchmarks.train.job import Clock, Job, own_device


@dataclass(frozen=True)
class Competitor:
    """One way to train."""

    train: Callable[[Job, torch.device, Clock], None]
    settings: Mapping[str, str]  # what it was set to, in words
    gpu_only: bool = False


_FLOAT = "float32 on a CPU"
_GIVEN = "float32, normalised"

COMPETITORS = {
    "minet": Competitor(
        ours.train,
        {
            "how": "TrainStep.step on stored images (uint8), normalised on the device; hits counted; "
            "channels-last, fused SGD, freed memory kept",
            "precision": f"bfloat16 and compiled on a GPU, {_FLOAT}",
        },
    ),
    "minet, augmented": Competitor(
        ours.train_augmented,
        {
            "how": "the same, each image cropped, resized and mirrored on the device as in "
            "params.yaml",
            "precision": f"bfloat16 and compiled on a GPU, {_FLOAT}",
        },
    ),
    "torchvision": Competitor(
        torch_loops.train_torchvision,
        {
            "how": "as its classification reference: channels-first, loss and accuracies read "
            "every step",
            "images": _GIVEN,
            "precision": f"float16 and GradScaler on a GPU, {_FLOAT}",
        },
    ),
    "timm": Competitor(
        torch_loops.train_timm,
        {
            "how": "as its script with --channels-last: ClassificationTask, create_optimizer_v2, "
            "loss read every 50 steps",
            "images": _GIVEN,
            "precision": f"bfloat16 on a GPU, {_FLOAT}",
        },
    ),
    "timm, compiled": Competitor(
        torch_loops.train_timm_compiled,
        {"how": "the same with --torchcompile", "images": _GIVEN, "precision": "bfloat16"},
        gpu_only=True,
    ),
    "Lightning": Competitor(
        lightning_loop.train,
        {
            "how": "Trainer.fit without logger, checkpoints, progress bar; channels-first",
            "images": _GIVEN,
            "precision": f"bf16-mixed on a GPU, {_FLOAT}",
        },
    ),
}


def taking_part() -> list[str]:
    """Names of those that this device is for."""
    gpu = own_device().type == "cuda"
    return [name for name, one in COMPETITORS.items() if gpu or not one.gpu_only]


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Let one competitor train; give seconds and images of each repeat, the loss of each step."""
    job, device = Job(**asked["job"]), own_device()
    clock = Clock(job, device)
    COMPETITORS[asked["name"]].train(job, device, clock)
    return {
        "images": job.batch_size * job.steps,
        "seconds": clock.seconds(),
        "losses": clock.losses(),
    }
