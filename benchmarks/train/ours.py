"""minet's own step, with what `stages.train` does before the first one."""

from collections.abc import Iterator

import torch

from benchmarks.train.job import (
    Clock,
    Job,
    in_turn,
    input_form,
    model_of,
    recipe_of,
    stored_batches,
)
from minet.augment.plan import plan_epoch
from minet.augment.transforms import AugmentParams
from minet.core.arrays import all_indices
from minet.loader.batch import Batch
from minet.train.allocator import keep_freed_memory
from minet.train.step import TrainStep, configure_backends


def train(job: Job, device: torch.device, clock: Clock) -> None:
    """Train on stored images as they are."""
    _train(job, device, clock, augmented=False)


def train_augmented(job: Job, device: torch.device, clock: Clock) -> None:
    """Train on stored images, each cropped, resized and mirrored on the device."""
    _train(job, device, clock, augmented=True)


def _train(job: Job, device: torch.device, clock: Clock, *, augmented: bool) -> None:
    engine = ready_engine(job, device, augmented=augmented)
    for batch, draws in steps(job, device, augmented=augmented):
        loss, _ = engine.step(
            batch, draws, images=job.batch_size, lr=job.lr, image_size=job.image_size
        )
        clock.step_ended(loss / job.batch_size)


def ready_engine(job: Job, device: torch.device, *, augmented: bool) -> TrainStep:
    """Do what `stages.train` does before it trains."""
    keep_freed_memory()
    recipe = recipe_of(job, augmented=augmented)
    configure_backends(recipe, device)
    engine = TrainStep(model_of(job), recipe, input_form(job), device)
    engine.model.train()
    return engine


def steps(
    job: Job, device: torch.device, *, augmented: bool
) -> Iterator[tuple[Batch, AugmentParams]]:
    """Give what each step takes: stored images and what is drawn for them."""
    recipe, count = recipe_of(job, augmented=augmented), job.batch_size * job.batches
    plan = plan_epoch(count, job.image_size, recipe.augment, job.seed, 0)
    draws = AugmentParams.from_plan(plan, all_indices(count), device)
    for step, (images, labels) in enumerate(in_turn(stored_batches(job, device), job.all_steps)):
        first = step % job.batches * job.batch_size
        indices = all_indices(count)[first : first + job.batch_size]
        yield Batch(images, labels, indices), draws.narrow(first, job.batch_size)
