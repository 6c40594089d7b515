"""Averaged weights equal those computed by hand, and are what is evaluated."""

from collections.abc import Iterator

import torch

from minet.loader.batch import Batch
from minet.train.loop import validate
from minet.train.step import TrainStep
from tests.helpers.small_run import (
    CPU,
    SPEC,
    model,
    settings,
    train,
)


def test_averaged_weights_are_validated_and_kept(raw_params, blobs, tmp_path) -> None:
    """Compared with an average computed here from the weights after each step."""
    augment = raw_params["recipes"]["default"]["augment"]
    run = settings(raw_params, ema_decay=0.9, epochs=1, augment=augment)
    network = model()
    means = [parameter.detach().clone() for parameter in network.parameters()]
    steps = 0

    def update() -> None:
        decay = min(0.9, (1 + steps) / (10 + steps))
        for mean, parameter in zip(means, network.parameters(), strict=True):
            mean.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    def note(batches: Iterator[Batch], *_: int) -> Iterator[Batch]:
        nonlocal steps
        for batch in batches:
            yield batch
            steps += 1
            update()

    result = train(run, blobs, tmp_path / "r", note, network=network)
    names = [name for name, _ in network.named_parameters()]
    for name, mean in zip(names, means, strict=True):
        assert torch.allclose(result.weights[name], mean, atol=1e-6), name
        assert not torch.equal(result.weights[name], network.state_dict()[name])
    kept = model()
    kept.load_state_dict(result.weights)
    scores = validate(TrainStep(kept, settings(raw_params).train, SPEC, CPU), blobs)
    assert scores == (result.best.val_loss, result.best.val_accuracy)
