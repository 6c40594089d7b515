"""What one step of training does: a model on its device, its precision, its optimizer.

A step never waits for the device: what it returns lies there until someone looks.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from itertools import pairwise
from statistics import mode
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minet.augment.mixup import losses, mix
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.loader.batch import Batch
from minet.train.config import TrainSettings
from minet.train.distributed.process_group import ProcessGroup
from minet.train.distributed.sync_batch_norm import convert_sync_batchnorm
from minet.train.ema import EMA
from minet.train.optim import build_optimizer

_MOST_SIZES = 256  # of images in a run: 4096 px in steps of 16


class TrainStep:
    """A model and all that a step changes."""

    def __init__(
        self,
        model: nn.Module,
        recipe: TrainSettings,
        form: InputSpec,
        device: torch.device,
        team: ProcessGroup | None = None,
    ) -> None:
        """Put the model on the device, compiled if the recipe asks; weights are as given."""
        self.recipe, self.device, self.team = recipe, device, team or ProcessGroup()
        self.input_px, self.form = form.input_px, form.to(device)
        self.planes = len(self.form.mean)
        self.model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._norms = convert_sync_batchnorm(self.model) if self.team.world_size > 1 else []
        self.optimizer = build_optimizer(self.model, recipe)
        self.dtype = precision(recipe, device)
        self.compiled = compiles(recipe, device)
        self._eager = self._wrap_ddp()
        # a smaller batch is not worth the time that compiling for its size takes
        self._compiled = _compiled(self._eager) if self.compiled else self._eager
        # images of most passes
        self._usual = mode(
            part.stop - part.start for part in self._micro_batches(recipe.batch_size)
        )
        self._average = EMA(self.model, recipe.ema_decay) if recipe.ema_decay else None

    def step(
        self, batch: Batch, draws: AugmentParams, *, images: int, lr: float, image_size: int
    ) -> tuple[Tensor, Tensor]:
        """Make a step of the optimizer on this rank's share of a global batch of `images` images.

        Gives the sum of the losses of this rank's images and how many of them it got right; with
        mixed images, of the own labels.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        inputs, labels, shares = self._prepared(batch, draws, image_size)
        loss = torch.zeros((), device=self.device)
        hits = torch.zeros((), dtype=torch.int64, device=self.device)
        parts = self._micro_batches(images)
        for part in parts:
            some = None if shares is None else shares[part]
            with self._maybe_no_sync(last=part is parts[-1]):
                part_loss, part_hits = self._forward_backward(
                    inputs[part], labels[..., part], some, weight=self.team.world_size / images
                )
            loss += part_loss
            hits += part_hits
        if self.recipe.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        if self._average is not None:
            self._average.follow()
        return loss, hits

    def predict(self, images: Tensor, draws: AugmentParams | None = None) -> Tensor:
        """Give the logits (N, K) of stored images, in float32, without changing anything."""
        with self._autocast():
            logits: Tensor = self.model(to_input(images, self.form, draws))
        return logits.float()

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Put the model into the state that is scored and kept: evaluating, averaged weights."""
        self.model.eval()
        with nullcontext() if self._average is None else self._average.in_place():
            yield
        self.model.train()

    def weights(self) -> dict[str, Tensor]:
        """Give a copy of the model's weights as they are now."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Give all that further steps depend on; it is what it is, not a copy."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same model and recipe."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _wrap_ddp(self) -> nn.Module:
        """Average gradients over the ranks while they are computed; norms need no broadcast."""
        if self.team.world_size == 1:
            return self.model
        # torch 2.15 has another name for it and warns of the old one
        known = signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        still: dict[str, Any] = {name: False}
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True, **still)

    def _prepared(
        self, batch: Batch, draws: AugmentParams, image_size: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Bring a batch to inputs and labels; mixed, with labels (2, N) and shares (N,)."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        if not len(labels):
            shape = (0, self.planes, image_size, image_size)
            return images.new_zeros(shape, dtype=torch.float32), labels, None
        inputs = to_input(images, self.form.resized(image_size), draws)
        if draws.mix_params is None:
            return inputs, labels, None
        if self.team.world_size > 1:  # partners follow, as `minet.augment.plan.Share` orders them
            inputs, partners = inputs.chunk(2)
            labels = torch.stack(labels.chunk(2))
        else:
            partners = inputs.roll(-1, dims=0)
            labels = torch.stack([labels, labels.roll(-1)])
        inputs, shares = mix(inputs, partners, draws.mix_params[: len(inputs)])
        return inputs, labels, shares

    def _micro_batches(self, images: int) -> list[slice]:
        """Cut this rank's share of a global batch where the batch is cut for all ranks.

        Parts are as even as can be and the same images for any number of ranks; a rank may have
        none of a part.
        """
        count = min(self.recipe.accumulation_steps, images)
        small, larger = divmod(images, count)
        edges = [part * small + min(part, larger) for part in range(count + 1)]
        own = [len(range(self.team.rank, edge, self.team.world_size)) for edge in edges]
        return [slice(*pair) for pair in pairwise(own)]

    def _forward_backward(
        self, inputs: Tensor, labels: Tensor, shares: Tensor | None, *, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of some images, each weighted; sums of losses and of hits."""
        if not len(inputs):
            return self._idle(inputs), torch.zeros_like(labels.sum())
        model = self._compiled if len(inputs) == self._usual else self._eager
        with self._autocast():
            logits = model(inputs)
        each = losses(logits.float(), labels, self.recipe.label_smoothing, shares)
        total = each.sum()
        (total * weight).backward()  # type: ignore[no-untyped-call]
        own = labels if shares is None else labels[0]
        return total.detach(), (logits.detach().argmax(dim=1) == own).sum()

    def _idle(self, inputs: Tensor) -> Tensor:
        """Pass a black image that counts for nothing: other ranks wait for this one's sums."""
        for norm in self._norms:
            norm.idle = True
        with self._autocast():
            logits = self._eager(inputs.new_zeros(1, *inputs.shape[1:]))
        nothing: Tensor = logits.float().sum() * 0
        nothing.backward()  # type: ignore[no-untyped-call]
        for norm in self._norms:
            norm.idle = False
        return nothing.detach()

    def _autocast(self) -> AbstractContextManager[Any]:
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=reduced)

    def _maybe_no_sync(self, *, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients once a step, in its last pass."""
        if last or not isinstance(self._eager, DistributedDataParallel):
            return nullcontext()
        return self._eager.no_sync()


def precision(recipe: TrainSettings, device: torch.device) -> torch.dtype:
    """Give the type that a model computes in; its weights stay float32."""
    if recipe.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if able else torch.float32
    return torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32


def compiles(recipe: TrainSettings, device: torch.device) -> bool:
    """Whether the model is compiled: on a CPU only if asked, where it takes minutes to gain."""
    if recipe.compile == "auto":
        return device.type == "cuda"
    return recipe.compile == "always"


def _compiled(model: nn.Module) -> nn.Module:
    """Compile for each size of images by itself, of which growing images have more than usual."""
    import torch._dynamo.config as limits  # here: it takes a second

    limits.recompile_limit = max(limits.recompile_limit, _MOST_SIZES)
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return compiled


def configure_backends(recipe: TrainSettings, device: torch.device) -> None:
    """On a GPU, the fastest kernels for the sizes at hand, or only those of fixed bytes."""
    torch.backends.cudnn.benchmark = device.type == "cuda" and not recipe.deterministic
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
