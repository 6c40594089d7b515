"""Tests that need a GPU; skipped without one."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minet.augment.config import AugmentSettings
from minet.augment.plan import plan_epoch
from minet.augment.transforms import AugmentParams, InputSpec
from minet.core.arrays import all_indices
from minet.core.errors import InputError
from minet.loader.prefetch import prefetch_to_device
from minet.models.registry import build
from minet.train.config import TrainSettings
from minet.train.oom import oom_as_input_error
from minet.train.step import TrainStep
from tests.helpers.chaos import chaos
from tests.helpers.sources import ListSource

pytestmark = pytest.mark.gpu
GPU, IMAGE_SIZE, COUNT = torch.device("cuda"), 64, 96
SPEC = InputSpec(IMAGE_SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def source() -> ListSource:
    """Return random images of 64 px."""
    images = torch.randint(0, 256, (COUNT, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    return ListSource(images, torch.arange(COUNT) % 10, 32)


def recipe(raw_params: dict[str, Any], **changes: Any) -> TrainSettings:
    """Return the committed recipe with some changes and all kinds of augmentation."""
    train = raw_params["recipes"]["default"] | {"batch_size": 32, "compile": "never"} | changes
    train["augment"] |= {"rotation_degrees": 10.0, "channel_shuffle": 0.5, "mixup_alpha": 0.2}
    return TrainSettings.model_validate(train)


def params_of(augment: AugmentSettings) -> AugmentParams:
    """Return the augmentation of an epoch on the GPU, in the order of the split."""
    return AugmentParams.from_plan(
        plan_epoch(COUNT, IMAGE_SIZE, augment, 0, 0), all_indices(COUNT), GPU
    )


@pytest.mark.parametrize(
    "extras", [{}, {"ema_decay": 0.9, "max_grad_norm": 1.0, "accumulation_steps": 2}]
)
def test_a_step_never_waits_for_the_gpu(raw_params, source: ListSource, extras) -> None:
    run = recipe(raw_params, **extras)
    train_step = TrainStep(build("resnet18", num_classes=10), run, SPEC, GPU)
    params = params_of(run.augment)
    batches = list(prefetch_to_device(source.batches(all_indices(COUNT)), GPU))
    for warm in (True, False):
        torch.cuda.set_sync_debug_mode("default" if warm else "error")
        try:
            for number, batch in enumerate(batches):
                rows = params.narrow(32 * number, 32)
                train_step.step(batch, rows, images=32, lr=0.01, image_size=IMAGE_SIZE)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_prefetched_batches_are_complete(source: ListSource) -> None:
    pinned = ListSource(source.images.pin_memory(), source.labels, 32)
    for batch in prefetch_to_device(pinned.batches(all_indices(COUNT)), GPU):
        assert torch.equal(batch.images.cpu(), source.images[batch.indices])
        assert torch.equal(batch.labels.cpu(), source.labels[batch.indices])


def test_a_compiled_step_has_the_losses_of_an_eager_one(raw_params, source: ListSource) -> None:
    sums = []
    for choice in ("never", "always"):
        torch.manual_seed(0)
        run = recipe(raw_params, compile=choice, precision="float32", optimizer="sgd", lr=0.01)
        train_step = TrainStep(build("resnet18", num_classes=10), run, SPEC, GPU)
        params, total = params_of(run.augment), 0.0
        for number, batch in enumerate(source.batches(all_indices(COUNT))):
            rows = params.narrow(32 * number, 32)
            loss, _ = train_step.step(batch, rows, images=32, lr=0.01, image_size=IMAGE_SIZE)
            total += loss.item()
        sums.append(total / COUNT)
    assert sums[0] == pytest.approx(sums[1], abs=1e-2)


def test_too_large_a_batch_is_an_error_that_suggests_a_smaller_one(raw_params) -> None:
    run = recipe(raw_params, batch_size=1024)
    with (
        pytest.raises(InputError, match="try train.accumulation_steps=2"),
        oom_as_input_error(run, 1, GPU),
    ):
        torch.empty(2**50, device=GPU)


def test_killed_runs_give_the_same_bytes_with_deterministic_kernels(tmp_path: Path) -> None:
    tally = chaos(tmp_path, kills=3, seed=5, deterministic=True)
    assert not tally.wrong


def test_a_dynamic_model_trains_in_reduced_precision(raw_params, source: ListSource) -> None:
    run = recipe(raw_params, precision="bfloat16")
    train_step = TrainStep(build("dynamic_resnet18", num_classes=10), run, SPEC, GPU)
    step = partial(train_step.step, images=32, lr=0.001, image_size=IMAGE_SIZE)
    batch = next(prefetch_to_device(source.batches(all_indices(COUNT)), GPU))
    losses = [step(batch, AugmentParams())[0].item() for _ in range(8)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(isinstance(p, nn.Parameter) for p in train_step.model.parameters())
