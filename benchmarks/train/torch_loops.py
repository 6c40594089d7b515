"""Training loops with the operations of torchvision's reference and timm's script, in order."""

from contextlib import nullcontext
from statistics import fmean

import torch
from torch import Tensor, nn

from benchmarks.train.job import Clock, Job, build_model, cycled, float_batches

_LOG_EVERY = 50  # steps; timm's default


def train_torchvision(job: Job, device: torch.device, clock: Clock) -> None:
    """Train as torchvision's classification reference: float16 and GradScaler on a GPU.

    Its meters read loss and accuracies at every step; each read synchronizes.
    """
    gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    model = build_model(job).to(device).train()
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), job.lr, momentum=job.momentum)
    scaler = torch.amp.GradScaler("cuda", enabled=gpu)
    meters: dict[str, list[float]] = {"loss": [], "top 1": [], "top 5": []}
    batches = float_batches(job, device, torch.contiguous_format)
    for batch in cycled(batches, job.all_steps):
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        with torch.autocast("cuda", torch.float16) if gpu else nullcontext():
            output = model(images)
            loss = loss_of(output, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        top_1, top_5 = _accuracies(output, labels)
        meters["loss"].append(loss.item())
        meters["top 1"].append(top_1.item())
        meters["top 5"].append(top_5.item())
        clock.step_ended(loss.detach())


@torch.inference_mode()
def _accuracies(output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return top-1 and top-5 accuracy, each ()."""
    correct = output.topk(5, dim=1).indices == labels[:, None]
    return correct[:, 0].float().mean(), correct.any(dim=1).float().mean()


def train_timm(job: Job, device: torch.device, clock: Clock) -> None:
    """Train as timm's script, with its task, optimizer factory and meter."""
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
    model = build_model(job)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(
        model, "momentum", lr=job.lr, weight_decay=0.0, momentum=job.momentum
    )
    task = ClassificationTask(model, nn.CrossEntropyLoss(), device=device, verbose=False).train()
    if compiled:
        task.compile()
    meter, losses = AverageMeter(), list[Tensor]()
    batches = float_batches(job, device, torch.channels_last)
    for step, (nchw, labels) in enumerate(cycled(batches, job.all_steps)):
        images = nchw.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16) if gpu else nullcontext():
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if (step + 1) % _LOG_EVERY == 0:
            meter.update(fmean(loss.item() for loss in losses), len(losses))
            losses.clear()
        clock.step_ended(loss.detach())
