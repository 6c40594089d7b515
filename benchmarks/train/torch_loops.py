"""Loops as torchvision's reference and timm's script have them, in their order of work."""

from contextlib import nullcontext
from statistics import fmean

import torch
from torch import Tensor, nn

from benchmarks.train.job import Clock, Job, in_turn, model_of, ready_batches

_LOG_EVERY = 50  # steps; timm's default


def train_torchvision(job: Job, device: torch.device, clock: Clock) -> None:
    """Train as torchvision's classification reference: float16 and a scaler on a GPU.

    Its meters take loss and accuracies of every step as numbers, each of them a wait.
    """
    gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    model = model_of(job).to(device).train()
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), job.lr, momentum=job.momentum)
    scaler = torch.amp.GradScaler("cuda", enabled=gpu)
    meters: dict[str, list[float]] = {"loss": [], "top 1": [], "top 5": []}
    ready = ready_batches(job, device, torch.contiguous_format)
    for given, named in in_turn(ready, job.all_steps):
        images = given.to(device, non_blocking=True)
        labels = named.to(device, non_blocking=True)
        with torch.autocast("cuda", torch.float16) if gpu else nullcontext():
            output = model(images)
            loss = loss_of(output, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        first, fifth = _accuracies(output, labels)
        meters["loss"].append(loss.item())
        meters["top 1"].append(first.item())
        meters["top 5"].append(fifth.item())
        clock.step_ended(loss.detach())


@torch.inference_mode()
def _accuracies(output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of images whose label is the first, or among the first five."""
    hits = output.topk(5, dim=1).indices == labels[:, None]
    return hits[:, 0].float().mean(), hits.any(dim=1).float().mean()


def train_timm(job: Job, device: torch.device, clock: Clock) -> None:
    """Train as timm's script, with its task, its optimizer factory and its meter."""
    _train_timm(job, device, clock, compiled=False)


def train_timm_compiled(job: Job, device: torch.device, clock: Clock) -> None:
    """Train as timm's script with --torchcompile."""
    _train_timm(job, device, clock, compiled=True)


def _train_timm(job: Job, device: torch.device, clock: Clock, *, compiled: bool) -> None:
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask
    from timm.utils import AverageMeter

    gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    model = model_of(job)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(
        model, "momentum", lr=job.lr, weight_decay=0.0, momentum=job.momentum
    )
    task = ClassificationTask(model, nn.CrossEntropyLoss(), device=device, verbose=False).train()
    if compiled:
        task.compile()
    meter, waiting = AverageMeter(), list[Tensor]()
    ready = ready_batches(job, device, torch.channels_last)
    for step, (given, labels) in enumerate(in_turn(ready, job.all_steps)):
        images = given.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16) if gpu else nullcontext():
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        waiting.append(loss.detach())
        if (step + 1) % _LOG_EVERY == 0:
            meter.update(fmean(loss.item() for loss in waiting), len(waiting))
            waiting.clear()
        clock.step_ended(loss.detach())
