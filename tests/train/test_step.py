"""One optimizer step: micro-batches, gradients, precision, padding, compilation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minet.augment.transforms import AugmentParams
from minet.loader.batch import Batch
from minet.train.distributed.process_group import ProcessGroup
from minet.train.step import TrainStep
from tests.helpers.small_run import (
    CPU,
    SPEC,
    model,
    narrow,
    settings,
    train,
    unshuffled,
)


def test_micro_batches_make_the_step_of_the_whole_batch(raw_params, blobs, tmp_path) -> None:
    """Of a model without batch norm: 37 images in batches of 8, each in 3 micro-batches."""
    blobs.images, blobs.labels, blobs.count = blobs.images[:37], blobs.labels[:37], 37
    results = []
    for accumulation_steps in (1, 3):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        run = settings(raw_params, accumulation_steps=accumulation_steps, optimizer="sgd", lr=0.001)
        folder = tmp_path / str(accumulation_steps)
        results.append(train(run, blobs, folder, network=network))
    for one, other in zip(*(result.history for result in results), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-6)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)


def test_a_gradient_is_clipped_to_max_grad_norm(raw_params, blobs) -> None:
    run = settings(raw_params, max_grad_norm=1e-3, optimizer="sgd", lr=1.0, momentum=0.0)
    network = model()
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    train_step = TrainStep(network, run.train, SPEC, CPU)
    batch = next(blobs.batches(np.arange(8)))
    train_step.step(batch, AugmentParams(), images=8, lr=1.0, image_size=16)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_gradients_have_the_strides_of_their_weights(raw_params, blobs) -> None:
    """A fused optimizer updates element by element in memory order."""
    network = model()
    train_step = TrainStep(network, settings(raw_params).train, SPEC, CPU)
    train_step.step(
        next(blobs.batches(np.arange(8))), AugmentParams(), images=8, lr=0.1, image_size=16
    )
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride(), name


def test_reduced_precision_is_for_activations_only_and_weights_stay_float32(
    raw_params, blobs, tmp_path
) -> None:
    seen = []
    network = model()
    network[0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    result = train(settings(raw_params, precision="bfloat16"), blobs, tmp_path, network=network)
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in result.weights.values()} == {torch.float32, torch.int64}
    assert result.best.val_accuracy > 0.9


@pytest.mark.parametrize(
    ("channels", "channel_mode", "in_channels"),
    [("RGB", "zero", 3), ("GB", "zero", 3), ("GB", "slice", 2), ("B", "sigmoid", 1)],
)
def test_a_rank_without_images_runs_one_that_does_not_count(
    raw_params, channels: str, channel_mode: str, in_channels: int
) -> None:
    """Rank 1 of 2 in a last batch of one image: as many channels as rank 0, but weight 0."""
    run = unshuffled(raw_params, channels=channels, channel_mode=channel_mode)
    input_spec = replace(SPEC, channels=channels, channel_mode=channel_mode)
    network = narrow(in_channels)
    train_step = TrainStep(network, run.train, input_spec, CPU)
    train_step.group = ProcessGroup(rank=1, world_size=2)
    padding = Batch(
        torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8),
        torch.ones(1, dtype=torch.int64),
        np.zeros(1, np.int64),
    )
    inputs, labels, lam = train_step._inputs(padding, AugmentParams(), 12)
    assert inputs.shape == (1, in_channels, 12, 12)
    assert inputs.dtype == torch.float32
    assert (len(labels), lam) == (1, None)
    loss, correct = train_step.step(padding, AugmentParams(), images=1, lr=0.1, image_size=16)
    assert (loss.item(), correct.item()) == (0, 0)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_an_eager_one(raw_params, blobs, tmp_path) -> None:
    """37 images: the last, smaller batch is not compiled; compiling takes half a minute."""
    blobs.images, blobs.labels, blobs.count = blobs.images[:37], blobs.labels[:37], 37
    results = [
        train(
            settings(raw_params, compile=choice, optimizer="sgd", lr=0.001),
            blobs,
            tmp_path / choice,
            network=nn.Sequential(*list(model())[:-2], model()[-1]),  # dropout would draw others
        )
        for choice in ("never", "always")
    ]
    for one, other in zip(*(result.history for result in results), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-5)
