"""minet's training step, set up as in `stages.train`."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.train.job import (
    Clock,
    Job,
    build_model,
    cycled,
    input_spec,
    recipe_of,
    uint8_batches,
)
from minet.augment.plan import plan_epoch
from minet.augment.transforms import AugmentParams
from minet.core.arrays import all_indices
from minet.loader.batch import Batch
from minet.train.allocator import keep_freed_memory
from minet.train.step import TrainStep, configure_backends


def train(job: Job, device: torch.device, clock: Clock) -> None:
    """Train on uint8 images without augmentation."""
    run_steps(ready_train_step(job, device, augmented=False), job, clock, augmented=False)


def train_augmented(job: Job, device: torch.device, clock: Clock) -> None:
    """Train on uint8 images, each cropped, resized and flipped on the device."""
    run_steps(ready_train_step(job, device, augmented=True), job, clock, augmented=True)


def run_steps(train_step: TrainStep, job: Job, clock: Clock, *, augmented: bool) -> None:
    """Make all steps of a job."""
    for batch, augment_params in steps(job, train_step.device, augmented=augmented):
        loss, _ = train_step.step(
            batch, augment_params, images=job.batch_size, lr=job.lr, image_size=job.image_size
        )
        clock.step_ended(loss / job.batch_size)


def ready_train_step(
    job: Job, device: torch.device, *, augmented: bool, **settings: Any
) -> TrainStep:
    """Build a TrainStep as `stages.train` does; `settings` are changes of the recipe."""
    keep_freed_memory()
    recipe = recipe_of(job, augmented=augmented, **settings)
    configure_backends(recipe, device)
    train_step = TrainStep(build_model(job), recipe, input_spec(job), device)
    train_step.model.train()
    return train_step


def steps(
    job: Job, device: torch.device, *, augmented: bool
) -> Iterator[tuple[Batch, AugmentParams]]:
    """Yield a batch of uint8 images and its augmentation parameters for each step."""
    recipe, count = recipe_of(job, augmented=augmented), job.batch_size * job.batches
    plan = plan_epoch(count, job.image_size, recipe.augment, job.seed, 0)
    augment_params = AugmentParams.from_plan(plan, all_indices(count), device)
    for step, (images, labels) in enumerate(cycled(uint8_batches(job, device), job.all_steps)):
        first = step % job.batches * job.batch_size
        indices = all_indices(count)[first : first + job.batch_size]
        yield Batch(images, labels, indices), augment_params.narrow(first, job.batch_size)
