"""What every competitor is given, the same for all, and the clock that it tells of its steps."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.data.turns import ROOT
from minet.augment.transforms import IMAGENET_MEAN, IMAGENET_STD, InputSpec, normalize
from minet.core.arrays import all_indices
from minet.models.registry import MODELS, build
from minet.params import Params, check_params, read_yaml
from minet.train.config import TrainSettings

CLASSES = 10
_NOISE, _STEP = 64, 20  # grey levels: noise, and how much brighter each class is than the last
# what the other loops do not do, or do otherwise, is off
_PLAIN = {
    "epochs": 1,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "nesterov": False,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "accumulation_steps": 1,
    "initial_px": 0,
    "max_grad_norm": 0.0,
    "label_smoothing": 0.0,
    "ema_decay": 0.0,
    "processes": 1,
}

Batches = list[tuple[Tensor, Tensor]]  # images and labels (N,)


@dataclass(frozen=True)
class Job:
    """A model, its images and how often it is trained on them; plain values, to go through JSON."""

    model: str
    batch_size: int
    image_size: int
    batches: int  # different ones, which come again and again
    warm_up: int  # steps before the clock: memory grows, kernels are chosen, code is compiled
    repeats: int
    steps: int  # of a repeat
    lr: float = 0.01
    momentum: float = 0.9
    seed: int = 0

    @property
    def all_steps(self) -> int:
        """Steps with and before the clock."""
        return self.warm_up + self.repeats * self.steps

    def record(self) -> dict[str, Any]:
        """Give it as plain data."""
        return asdict(self)


class Clock:
    """Takes the time of each repeat, and keeps the loss of each step where it lies."""

    def __init__(self, job: Job, device: torch.device) -> None:
        """Wait for the first step."""
        self._job, self._device = job, device
        self._losses: list[Tensor] = []
        self._marks: list[float] = []

    def step_ended(self, loss: Tensor) -> None:
        """Take the mean loss of a step, (), at its end; no wait but at the ends of repeats."""
        self._losses.append(loss)
        done = len(self._losses) - self._job.warm_up
        if done >= 0 and done % self._job.steps == 0:
            self._marks.append(now(self._device))

    def seconds(self) -> list[float]:
        """Seconds of each repeat."""
        return [after - before for before, after in pairwise(self._marks)]

    def losses(self) -> list[float]:
        """Mean loss of each step, before that step changed the weights."""
        return [loss.item() for loss in self._losses]


def now(device: torch.device) -> float:
    """Seconds on the clock when the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def own_device() -> torch.device:
    """Give the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def params() -> Params:
    """Give the committed settings."""
    found, problems = check_params(read_yaml(ROOT / "params.yaml"), MODELS)
    if found is None:
        raise ValueError("; ".join(problems))
    return found


def model_of(job: Job) -> nn.Module:
    """Build the model, with the same random weights for everyone."""
    torch.manual_seed(job.seed)
    return build(job.model, num_classes=CLASSES, **params().arguments(job.model))


def recipe_of(job: Job, *, augmented: bool) -> TrainSettings:
    """Give minet's recipe: SGD at one rate and, if augmented, what params.yaml does to images."""
    own = params().train
    changes: dict[str, Any] = {
        **_PLAIN,
        "batch_size": job.batch_size,
        "input_px": job.image_size,
        "lr": job.lr,
        "momentum": job.momentum,
    }
    if not augmented:
        off = {"flip": 0.0, "crop_scale": (1.0, 1.0)}
        changes["augment"] = own.augment.model_copy(update=off)
    return own.model_copy(update=changes)


def input_form(job: Job) -> InputSpec:
    """Give what minet makes of stored images before the model sees them."""
    return InputSpec(job.image_size, IMAGENET_MEAN, IMAGENET_STD)


def stored_batches(job: Job, device: torch.device) -> Batches:
    """Draw images (N, 3, side, side) uint8, channels-last, that are brighter the higher the class.

    Noise alone could not be learned, and a loss that stays would not show that training works.
    """
    generator = torch.Generator().manual_seed(job.seed)
    labels = all_indices(job.batch_size) % CLASSES
    found = []
    for _ in range(job.batches):
        shape = (job.batch_size, 3, job.image_size, job.image_size)
        noise = torch.randint(_NOISE, shape, dtype=torch.uint8, generator=generator)
        classes = torch.from_numpy(labels)
        images = noise + (classes * _STEP).to(torch.uint8)[:, None, None, None]
        images = images.contiguous(memory_format=torch.channels_last)
        found.append((images.to(device), classes.to(device)))
    return found


def ready_batches(job: Job, device: torch.device, memory: torch.memory_format) -> Batches:
    """Give the same images as a model sees them: float32, normalised, in a layout of memory."""
    mean, std = (torch.tensor(value, device=device) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return [
        (normalize(images.float(), mean, std).contiguous(memory_format=memory), labels)
        for images, labels in stored_batches(job, device)
    ]


def in_turn(batches: Batches, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give a batch a step, again and again in the same order."""
    for step in range(steps):
        yield batches[step % len(batches)]
