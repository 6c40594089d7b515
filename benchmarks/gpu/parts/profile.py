"""FLOPs utilization of the training step, and where the rest of the time goes."""

from collections import Counter
from functools import partial
from statistics import median
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.parts.images import FEW
from benchmarks.gpu.sizes import DYNAMIC, STATIC
from benchmarks.gpu.work import Work
from benchmarks.train import mfu
from benchmarks.train.job import Job, now
from benchmarks.train.ours import ready_train_step
from benchmarks.train.stall import Loop, MemorySource, open_beton
from benchmarks.train.trace import kind_of
from minet.core.arrays import all_indices

_LONGEST = 10  # kernels, and gaps, that are listed
_MIN_GAP_US = 5.0  # shorter ones are launches
# calls in which the host waits for the device
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
          "aten::item", "aten::_local_scalar_dense")  # fmt: skip


def measure(work: Work) -> None:
    """Report both models' utilization, then the profile of an epoch of the loop."""
    size = work.size
    jobs = {
        STATIC: work.job(STATIC, size.batch_size),
        DYNAMIC: work.job(DYNAMIC, size.ratio_batch_size),
    }
    for model, job in jobs.items():
        work.attempt("mfu", model, measure=partial(_utilization, job, work))
    for model, job in jobs.items():
        work.attempt("profile", model, measure=partial(_profile, job, work))


def _utilization(job: Job, work: Work) -> dict[str, Any]:
    """Return achieved and measured operations per second, and their ratio."""
    figures = mfu.measure({"job": job.record(), "product_side": work.size.product_side})
    ceiling = max(figures["measured_flops_per_s"]["product"])
    achieved = median(figures["images_per_s"]) * figures["step_flops"]
    return figures | {
        "mfu": achieved / ceiling,
        "ceiling_flops_per_s": ceiling,
        "ceiling": f"fastest matrix product of side {work.size.product_side} around the steps",
        "flops": "3 x 2 x multiply-adds of a forward pass, by fvcore (minet.cost.counter)",
    }


def _profile(job: Job, work: Work) -> dict[str, Any]:
    """Profile an epoch of minet's loop on a resident beton, after one that compiles."""
    train_step = ready_train_step(job, work.device, augmented=True)
    loader = open_beton(work.folder / FEW / "train.beton", job, "resident", work.device)
    memory = MemorySource([next(loader.batches(all_indices(job.batch_size)))])
    loop = Loop(train_step, loader, memory, job)
    loop.epoch()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if work.gpu else [])]
    with profile(activities=activities) as profiler:
        seconds = loop.epoch()
        now(work.device)
    events = list(profiler.events() or [])
    steps = -(-loader.count // job.batch_size)
    return {"batch_size": job.batch_size, "steps": steps, "epoch_s": seconds} | summary(
        [event for event in events if _is_work(event, gpu=work.gpu)], _waits(events)
    )


def _is_work(event: FunctionEvent, *, gpu: bool) -> bool:
    """Whether an event is a kernel or copy of the GPU; on a CPU, an operation within no other."""
    if gpu:
        return event.device_type.name == "CUDA" and not event.is_user_annotation
    return event.cpu_parent is None


def summary(work: list[FunctionEvent], waits: dict[str, float]) -> dict[str, Any]:
    """Return the share of time with work, the longest kernels and gaps, and waits, in ms."""
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in work)
    busy_us, gaps = 0.0, []
    total, calls = Counter[str](), Counter[str]()
    end, last = spans[0][0], ""
    for start, stop, name in spans:
        if start - end > _MIN_GAP_US:
            gaps.append({"ms": (start - end) / 1e3, "after": last, "before": name})
        busy_us += max(0.0, stop - max(start, end))
        total[name] += (stop - start) / 1e3
        calls[name] += 1
        if stop > end:
            end, last = stop, name
    span_us, all_ms = end - spans[0][0], sum(total.values())
    kinds = Counter[str]()
    for name, ms in total.items():
        kinds[kind_of(name)] += ms
    return {
        "span_ms": span_us / 1e3,
        "busy": busy_us / span_us,
        "gaps": {
            "count": len(gaps),
            "ms": sum(gap["ms"] for gap in gaps),
            "longest": sorted(gaps, key=lambda gap: -gap["ms"])[:_LONGEST],
        },
        "host_waits_ms": waits,
        "ms_by_kind": dict(kinds),
        "kernels": [
            {"name": name, "ms": ms, "calls": calls[name], "share": ms / all_ms}
            for name, ms in total.most_common(_LONGEST)
        ],
    }


def _waits(events: list[FunctionEvent]) -> dict[str, float]:
    waits = Counter[str]()
    for event in events:
        if event.name in _WAITS:
            waits[event.name] += (event.time_range.end - event.time_range.start) / 1e3
    return dict(waits)
