"""One step of training: a model on its device, its precision, its optimizer.

A step never waits for the device: the loss that it returns stays there until it is read.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from statistics import mode
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minet.augment.mixup import losses, mix
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.loader.batch import Batch
from minet.loader.sharding import MicroBatch, micro_batches
from minet.train.config import TrainSettings
from minet.train.distributed.process_group import ProcessGroup
from minet.train.distributed.sync_batch_norm import convert_sync_batchnorm
from minet.train.ema import EMA
from minet.train.optim import build_optimizer

_MAX_IMAGE_SIZES = 256  # of a run whose images grow: 4096 px in steps of 16


class TrainStep:
    """A model with its optimizer and EMA.

    The model is put on the device, compiled if the recipe asks for it; its weights are as given.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: TrainSettings,
        input_spec: InputSpec,
        device: torch.device,
        group: ProcessGroup | None = None,
    ) -> None:
        self.recipe, self.device, self.group = recipe, device, group or ProcessGroup()
        self.input_px, self.input_spec = input_spec.input_px, input_spec.to(device)
        self.input_channels = len(self.input_spec.mean)
        self.model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sync_norms = convert_sync_batchnorm(self.model) if self.group.world_size > 1 else []
        self.optimizer = build_optimizer(self.model, recipe)
        self.dtype = precision(recipe, device)
        self.compiled = compiles(recipe, device)
        self._eager = self._wrap_ddp()
        # a smaller batch is not worth the time that compiling for its size takes
        self._compiled = _compiled(self._eager) if self.compiled else self._eager
        self._compiled_size = mode(
            micro.rows.stop - micro.rows.start for micro in self._micro_batches(recipe.batch_size)
        )
        self._ema = EMA(self.model, recipe.ema_decay) if recipe.ema_decay else None

    def step(
        self, batch: Batch, params: AugmentParams, *, images: int, lr: float, image_size: int
    ) -> tuple[Tensor, Tensor]:
        """Make an optimizer step on this rank's part of a global batch of `images` images.

        Return two scalars on the device: the sum of the losses of this rank's images and the number
        of them that are correct; of mixed images, by their own labels.
        """
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        inputs, labels, lam = self._inputs(batch, params, image_size)
        loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        micros = self._micro_batches(images)
        for micro in micros:
            for norm in self._sync_norms:
                norm.is_padding = micro.is_padding
            with self._maybe_no_sync(last=micro is micros[-1]):
                micro_loss, micro_correct = self._forward_backward(
                    inputs[micro.rows],
                    labels[..., micro.rows],
                    None if lam is None else lam[micro.rows],
                    # the mean over the global batch: DDP divides the sum over ranks by world_size
                    weight=0.0 if micro.is_padding else self.group.world_size / images,
                )
            if not micro.is_padding:
                loss += micro_loss
                correct += micro_correct
        if self.recipe.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        if self._ema is not None:
            self._ema.update()
        return loss, correct

    def predict(self, images: Tensor, params: AugmentParams | None = None) -> Tensor:
        """Return the logits (N, K) of stored images, in float32; nothing is changed."""
        with self._autocast():
            logits: Tensor = self.model(to_input(images, self.input_spec, params))
        return logits.float()

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Put the model into the state that is validated: eval mode, averaged weights."""
        self.model.eval()
        try:
            with nullcontext() if self._ema is None else self._ema.swapped():
                yield
        finally:
            self.model.train()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are validated, averaged if the recipe asks for it."""
        weights = self.model.state_dict() | ({} if self._ema is None else self._ema.averages)
        return {name: value.detach().clone() for name, value in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that further steps depend on (live tensors, not copies)."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self._ema is None else self._ema.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state of the same model and recipe."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])

    def _wrap_ddp(self) -> nn.Module:
        """Average gradients over the ranks during backward; the norms are in sync by themselves."""
        if self.group.world_size == 1:
            return self.model
        # torch 2.15 renamed the argument and warns of the old name
        names = signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        no_broadcast: dict[str, Any] = {name: False}
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True, **no_broadcast)

    def _inputs(
        self, batch: Batch, params: AugmentParams, image_size: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return inputs (N, C, S, S), labels (N,), None; mixed: labels (2, N) and lambda (N,)."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        inputs = to_input(images, self.input_spec.resized(image_size), params)
        if params.mix_params is None:
            return inputs, labels, None
        if self.group.world_size > 1:  # the partners come after the images, see BatchSharder
            inputs, partners = inputs.chunk(2)
            labels = torch.stack(labels.chunk(2))
        else:
            partners = inputs.roll(-1, dims=0)
            labels = torch.stack([labels, labels.roll(-1)])
        inputs, lam = mix(inputs, partners, params.mix_params[: len(inputs)])
        return inputs, labels, lam

    def _micro_batches(self, images: int) -> list[MicroBatch]:
        return micro_batches(
            images,
            self.recipe.accumulation_steps,
            rank=self.group.rank,
            world_size=self.group.world_size,
        )

    def _forward_backward(
        self, inputs: Tensor, labels: Tensor, lam: Tensor | None, *, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of the weighted loss; return the sum of losses and the correct ones."""
        model = self._compiled if len(inputs) == self._compiled_size else self._eager
        with self._autocast():
            logits = model(inputs)
        loss = losses(logits.float(), labels, self.recipe.label_smoothing, lam).sum()
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        own_labels = labels if lam is None else labels[0]
        return loss.detach(), (logits.detach().argmax(dim=1) == own_labels).sum()

    def _autocast(self) -> AbstractContextManager[Any]:
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=reduced)

    def _maybe_no_sync(self, *, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients once a step, in its last micro-batch."""
        if last or not isinstance(self._eager, DistributedDataParallel):
            return nullcontext()
        return self._eager.no_sync()


def precision(recipe: TrainSettings, device: torch.device) -> torch.dtype:
    """Return the dtype that a model computes in; its weights stay float32."""
    if recipe.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if able else torch.float32
    return torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32


def compiles(recipe: TrainSettings, device: torch.device) -> bool:
    """Whether the model is compiled: not on a CPU by default, where it gains little in minutes."""
    if recipe.compile == "auto":
        return device.type == "cuda"
    return recipe.compile == "always"


def _compiled(model: nn.Module) -> nn.Module:
    """Compile for each image size separately; growing images have more sizes than torch's limit."""
    import torch._dynamo.config as dynamo_config  # here: it takes a second

    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, _MAX_IMAGE_SIZES)
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return compiled


def configure_backends(recipe: TrainSettings, device: torch.device) -> None:
    """Choose a GPU's fastest kernels for the sizes at hand, or deterministic ones only."""
    torch.backends.cudnn.benchmark = device.type == "cuda" and not recipe.deterministic
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
