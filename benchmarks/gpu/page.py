"""The section of docs/performance.md about GPUs, from benchmarks/results/gpu-<card>.json."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import spread, table
from benchmarks.dynamic_page import forms_table
from benchmarks.gpu.aims import aims_table
from benchmarks.train.page import loops_table, stall_table
from minet.core.files import read_json

Record = Mapping[str, Any]

_NONE = """No figure of minet on a GPU exists yet. One command measures and tests everything:

    make gpu-bundle
    bash benchmarks/gpu.sh --bundle gpu-bundle --out OUT --minutes 9"""


def gpu_section(folder: Path) -> str:
    """Return a text for each card whose record exists, or how to make one."""
    records = [read_json(path) for path in sorted(folder.glob("gpu-*.json"))]
    return "\n\n".join(card_section(record) for record in records) or _NONE


def card_section(record: Record) -> str:
    """Return what a record shows: the aims, then each part that has results."""
    parts, settings = record["parts"], record["settings"]
    results = {name: entry.get("results", {}) for name, entry in parts.items()}
    machine = results.get("environment", {})
    card = machine.get("card", {})
    texts = [f"### {card.get('name', settings['device'])}", _origin(machine, card, settings)]
    if settings["quick"]:
        texts.append("**A rehearsal with tiny sizes: no figure below means anything.**")
    texts.append(aims_table(results))
    for title, make in _TABLES.items():
        if text := make(results):
            texts += [f"{title}:", text]
    return "\n\n".join([*texts, "What ran:", _parts_table(parts)])


def _origin(machine: Record, card: Record, settings: Record) -> str:
    versions = machine.get("versions", {})
    pairs = {
        "processor": machine.get("machine", {}).get("processor"),
        "driver": card.get("before", {}).get("driver_version"),
        "torch": versions.get("torch"),
        "timm": versions.get("timm"),
        "pytorch-lightning": versions.get("pytorch-lightning"),
        "code": settings["origin"].get("bundle_commit"),
    }
    text = ", ".join(f"{name} {value}" for name, value in pairs.items() if value)
    copies = machine.get("gb_per_s", {})
    rates = [
        f"{name} {spread(values)}" for name, values in copies.items() if "failed" not in values
    ]
    product = [value / 1e12 for value in machine.get("flops_per_s", {}).get("product", [])]
    ceiling = f" Matrix products, TFLOP/s: {spread(product, 1)}." if product else ""
    return f"{text[:1].upper()}{text[1:]}.{ceiling}" + (
        f" Copies, GB/s: {'; '.join(rates)}." if rates else ""
    )


def _run_table(results: Record) -> str:
    part = results.get("end_to_end", {})
    if "run" not in part:
        return ""
    run, speed = part["run"], part["speed"]
    rows = [
        ("images of an epoch", f"{part['images']:,}"),
        ("batch", speed["batch_size"]),
        ("steps of warm epochs, images/s", spread(part["images_per_s"])),
        ("bare step, images/s", spread(run["bare_images_per_s"])),
        ("start to end of the first step, s", f"{part['first_step_s']:.1f}"),
        ("first epoch, s", f"{speed['epoch_s_first']:.1f}"),
        ("median epoch, s", f"{speed['epoch_s_median']:.2f}"),
        ("time spent on snapshots", f"{speed['save_share']:.1%}"),
        ("peak memory, GB", f"{run['peak_memory_gb']:.1f}"),
    ]
    return table(("", "`stages.train`"), rows)


def _loops_table(results: Record) -> str:
    part = results.get("loops", {})
    if "competitors" not in part:
        return ""
    size = {key: part["job"][key] for key in ("model", "batch_size")}
    return loops_table({"": size | {"competitors": part["competitors"]}})


def _steps_table(part: str) -> Callable[[Record], str]:
    def make(results: Record) -> str:
        rows = [
            (name, *_step_cells(one))
            for name, one in results.get(part, {}).get("steps", {}).items()
        ]
        header = ("", "images/s", "warm-up, s", "peak memory, GB")
        return table(header, rows) if rows else ""

    return make


def _step_cells(one: Record) -> tuple[str, ...]:
    if "failed" in one:
        return (f"failed: {one['failed']}", "", "")
    return (
        spread(one["images_per_s"]),
        f"{one['warm_up_s']:.1f}",
        f"{one['peak_memory_gb']:.1f}",
    )


def _loaders_table(results: Record) -> str:
    alone, loops = _of(results, "loaders", "alone"), results.get("loaders", {}).get("loop", {})
    rows = [(name, spread(one["images_per_s"])) for name, one in alone.items()]
    texts = [table(("on the device", "images/s"), rows)] if rows else []
    return "\n\n".join([*texts, *([stall_table(loops)] if loops else [])])


def _tests_text(results: Record) -> str:
    outcomes = results.get("tests", {}).get("tests", {})
    failures = {name: text for name, text in outcomes.items() if text not in ("passed", "skipped")}
    counts = {
        "passed": sum(text == "passed" for text in outcomes.values()),
        "skipped": sum(text == "skipped" for text in outcomes.values()),
        "failed": len(failures),
    }
    rows: list[tuple[str, object]] = list(counts.items())
    rows += [(f"failed: `{name}`", text.splitlines()[-1]) for name, text in failures.items()]
    claims = results.get("tests", {}).get("claims", {})
    rows += [(what, one["found"] or "none") for what, one in claims.items()]
    return table(("tests that need a GPU", ""), rows) if outcomes or claims else ""


def _mfu_table(results: Record) -> str:
    rows = [
        (
            f"{model}, batch {one['batch_size']}",
            spread(one["images_per_s"]),
            f"{one['ceiling_flops_per_s'] / 1e12:,.2f}",
            f"{one['mfu']:.0%}",
        )
        for model, one in _of(results, "profile", "mfu").items()
    ]
    header = ("", "images/s", "matrix product measured, TFLOP/s", "MFU")
    return table(header, rows) if rows else ""


def _profile_table(results: Record) -> str:
    texts = []
    for model, one in _of(results, "profile", "profile").items():
        gaps, waits = one["gaps"], sum(one["host_waits_ms"].values())
        rows = [
            (f"`{kernel['name'][:70]}`", kernel["calls"], f"{kernel['ms']:.1f}",
             f"{kernel['share']:.1%}")
            for kernel in one["kernels"]
        ]  # fmt: skip
        texts.append(
            f"{model}: the device works {one['busy']:.1%} of {one['span_ms']:,.0f} ms "
            f"({one['steps']} steps); {gaps['count']} gaps take {gaps['ms']:,.1f} ms, the longest "
            f"{max([gap['ms'] for gap in gaps['longest']], default=0.0):.2f}; the host waits "
            f"{waits:,.1f} ms.\n\n{table(('kernel', 'calls', 'ms', 'share'), rows)}"
        )
    return "\n\n".join(texts)


def _forms_table(results: Record) -> str:
    forms = _of(results, "sweep", "forms")
    texts = (f"Batch {count}:\n\n{forms_table({'forms': forms}, count, 2)}" for count in forms)
    return "\n\n".join(texts)


def _parts_table(parts: Record) -> str:
    rows = [
        (
            name,
            entry["outcome"],
            entry.get("seconds", ""),
            entry.get("limit_s", ""),
            "; ".join(_wrong(entry.get("results", {}))),
        )
        for name, entry in parts.items()
    ]
    return table(("part", "outcome", "seconds", "limit", "not as expected"), rows)


def _wrong(results: Record) -> Iterator[str]:
    for what, claim in results.get("claims", {}).items():
        if claim["found"] != claim["expected"]:
            yield f"{what}: {claim['found']}, not {claim['expected']}"


def _of(results: Record, part: str, key: str) -> dict[str, Any]:
    """Return what was measured under a key of a part, without what failed."""
    entries = results.get(part, {}).get(key, {})
    return {name: one for name, one in entries.items() if "failed" not in one}


_TABLES: dict[str, Callable[[Record], str]] = {
    "End to end": _run_table,
    "Other loops, images/s": _loops_table,
    "Models, steps on images in memory": _steps_table("models"),
    "Loaders, and the training loop that waits for them": _loaders_table,
    "Tests": _tests_text,
    "FLOPs utilization": _mfu_table,
    "An epoch of the loop by torch.profiler": _profile_table,
    "The step with one choice changed": _steps_table("sweep"),
    "Algorithms of dynamic convolution, ms": _forms_table,
}
