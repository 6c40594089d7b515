"""PyTorch Lightning's Trainer, configured to train only."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from benchmarks.train.job import Clock, Job, build_model, cycled, float_batches


class _Batches:
    """Replaces a DataLoader: the common batches, on the device."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._steps = job.all_steps
        self._batches = float_batches(job, device, torch.contiguous_format)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return cycled(self._batches, self._steps)


def train(job: Job, device: torch.device, clock: Clock) -> None:
    """Fit a LightningModule for one epoch of all steps."""
    import pytorch_lightning as lightning

    warnings.filterwarnings("ignore", module="pytorch_lightning")  # about workers and loggers
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    gpu = device.type == "cuda"

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.model(images), labels)

        def on_train_batch_end(self, outputs: dict[str, Tensor], *_: Any) -> None:
            clock.step_ended(outputs["loss"])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), job.lr, momentum=job.momentum)

    trainer = lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if gpu else "32-true",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=True,
    )
    trainer.fit(Module(build_model(job)), _Batches(job, device))
