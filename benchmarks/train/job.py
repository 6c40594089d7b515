"""The job of all competitors: model, images, settings; and the clock of their steps."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.processes import ROOT
from minet.augment.transforms import IMAGENET_MEAN, IMAGENET_STD, InputSpec, normalize
from minet.core.arrays import all_indices
from minet.models.registry import MODELS, build
from minet.params import Params, check_params, default_recipe, read_yaml
from minet.train.config import RunSettings, TrainSettings

CLASSES = 10
_NOISE, _STEP = 64, 20  # grey levels: noise, and the difference in brightness of successive classes
# off: what the other loops lack or do differently
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
    """A model, its images, its steps; plain values, passed to child processes as JSON."""

    model: str
    batch_size: int
    image_size: int
    batches: int  # different ones, used cyclically
    warm_up: int  # steps that are not timed: allocation, choice of kernels, compilation
    repeats: int
    steps: int  # per repeat
    lr: float = 0.01
    momentum: float = 0.9
    seed: int = 0

    @property
    def all_steps(self) -> int:
        """Number of steps, warm-up included."""
        return self.warm_up + self.repeats * self.steps

    def record(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


class Clock:
    """Times the repeats and collects the loss of each step, on its device."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self._losses: list[Tensor] = []
        self._marks: list[float] = []

    def step_ended(self, loss: Tensor) -> None:
        """Record the end of a step and its mean loss (); only ends of repeats synchronize."""
        self._losses.append(loss)
        done = len(self._losses) - self._job.warm_up
        if done >= 0 and done % self._job.steps == 0:
            self._marks.append(now(self._device))

    def seconds(self) -> list[float]:
        """Return the seconds of each repeat."""
        return [end - start for start, end in pairwise(self._marks)]

    def losses(self) -> list[float]:
        """Return the mean loss of each step, before its update of the weights."""
        return [loss.item() for loss in self._losses]


def now(device: torch.device) -> float:
    """Return the time in seconds after synchronizing with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def params() -> Params:
    """Return the committed settings; ValueError if they are invalid."""
    settings, problems = check_params(read_yaml(ROOT / "params.yaml"), MODELS)
    if settings is None:
        raise ValueError("; ".join(problems))
    return settings


def build_model(job: Job) -> nn.Module:
    """Build the model, with the same random weights for all competitors."""
    torch.manual_seed(job.seed)
    return build(job.model, num_classes=CLASSES, **params().arguments(job.model))


def recipe_of(job: Job, *, augmented: bool, **settings: Any) -> TrainSettings:
    """Return minet's recipe: SGD, a constant rate, the default augmentation if asked for.

    `settings` are further changes of the default recipe.
    """
    committed = default_recipe(params())
    changes: dict[str, Any] = {
        **_PLAIN,
        "batch_size": job.batch_size,
        "input_px": job.image_size,
        "lr": job.lr,
        "momentum": job.momentum,
        **settings,
    }
    if not augmented:
        off = {"flip": 0.0, "crop_scale": (1.0, 1.0)}
        changes["augment"] = committed.augment.model_copy(update=off)
    return committed.model_copy(update=changes)


def run_settings(job: Job, **recipe: Any) -> RunSettings:
    """Return the settings of `stages.train` for the job, augmented; `recipe` are its changes."""
    return RunSettings(
        model=job.model,
        builder=MODELS[job.model],
        arguments=params().arguments(job.model),
        weights="random",
        reinitialized=(),
        seed=job.seed,
        cache="auto",
        train=recipe_of(job, augmented=True, **recipe),
    )


def input_spec(job: Job) -> InputSpec:
    """Return minet's preprocessing of uint8 images."""
    return InputSpec(job.image_size, IMAGENET_MEAN, IMAGENET_STD)


def uint8_batches(job: Job, device: torch.device) -> Batches:
    """Return random images (N, 3, side, side), channels-last, brighter the higher the class.

    Pure noise could not be learned; a falling loss shows that training works.
    """
    generator = torch.Generator().manual_seed(job.seed)
    labels = all_indices(job.batch_size) % CLASSES
    batches = []
    for _ in range(job.batches):
        shape = (job.batch_size, 3, job.image_size, job.image_size)
        noise = torch.randint(_NOISE, shape, dtype=torch.uint8, generator=generator)
        classes = torch.from_numpy(labels)
        images = noise + (classes * _STEP).to(torch.uint8)[:, None, None, None]
        images = images.contiguous(memory_format=torch.channels_last)
        batches.append((images.to(device), classes.to(device)))
    return batches


def float_batches(job: Job, device: torch.device, memory: torch.memory_format) -> Batches:
    """Return the same images as float32, normalized, in a memory format."""
    mean, std = (torch.tensor(value, device=device) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return [
        (normalize(images.float(), mean, std).contiguous(memory_format=memory), labels)
        for images, labels in uint8_batches(job, device)
    ]


def cycled(batches: Batches, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch per step, cyclically."""
    for step in range(steps):
        yield batches[step % len(batches)]
