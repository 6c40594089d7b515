"""Markdown tables of benchmarks/results/train-*.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import spread, table
from minet.core.files import read_json

Record = Mapping[str, Any]


def train_tables(folder: Path) -> dict[str, str]:
    """Return the tables of all records in a folder by their marker names."""
    records = {path.stem: read_json(path) for path in sorted(folder.glob("train-*.json"))}
    return {
        name: text
        for stem, record in records.items()
        for name, text in tables(stem, record).items()
    }


def tables(stem: str, record: Record) -> dict[str, str]:
    """Return the tables of one record, named "<stem> <part>"."""
    makers = {
        "loops": loops_table,
        "stall": stall_table,
        "mfu": mfu_table,
        "trace": trace_table,
        "epochs": epochs_table,
    }
    return {f"{stem} {part}": make(record[part]) for part, make in makers.items() if part in record}


def loops_table(sizes: Record) -> str:
    """Return images per second of each loop, and minet's relative to the fastest competitor."""
    names = list(dict.fromkeys(name for size in sizes.values() for name in size["competitors"]))
    rows, reasons = [], []
    for size in sizes.values():
        loops = size["competitors"]
        reasons += [
            f"{name}, {size['model']}, batch {size['batch_size']}: {loop['failed']}"
            for name, loop in loops.items()
            if "failed" in loop
        ]
        cells = [_rates(loops.get(name, {})) for name in names]
        rows.append((size["model"], size["batch_size"], *cells, _lead(loops)))
    labels = (f"**{name}**" if name.startswith("minet") else name for name in names)
    text = table(("model", "batch", *labels, "minet / best peer"), rows)
    return "\n".join([text, *(f"\nFailed: {reason}" for reason in reasons)])


def stall_table(models: Record) -> str:
    """Return images per second of the bare step and of minet's loop; ratios per round."""
    rows: list[Sequence[object]] = []
    for model, result in models.items():
        if "failed" in result:
            rows.append((model, f"failed: {result['failed']}", *[""] * 4))
            continue
        rates = result["images_per_s"]
        cells = [spread(rates["memory"], 1)]
        for cache in ("stream", "resident"):
            ratios = [a / b for a, b in zip(rates[cache], rates["memory"], strict=True)]
            cells += [spread(rates[cache], 1), spread(ratios, 3)]
        rows.append((model, *cells))
    return table(("images/s", "bare step", "streamed", "ratio", "resident", "ratio"), rows)


def mfu_table(models: Record) -> str:
    """Return the achieved and the peak GFLOP/s of minet's step, and their ratio."""
    rows: list[Sequence[object]] = []
    for name, result in models.items():
        if "failed" in result:
            rows.append((name, f"failed: {result['failed']}", *[""] * 3))
            continue
        peak, rates = result["peak_flops_per_s"], result["images_per_s"]
        achieved = [rate * result["step_flops"] for rate in rates]
        rows.append(
            (
                name,
                spread(rates, 1),
                spread([flops / 1e9 for flops in achieved]),
                f"{peak / 1e9:,.0f}",
                f"{median(achieved) / peak:.0%}",
            )
        )
    return table(("", "images/s", "GFLOP/s", "peak, GFLOP/s", "MFU"), rows)


def trace_table(models: Record) -> str:
    """Return percentages of a step's profiled time by kind of operation, a column per model."""
    times = {name: one["ms_by_kind"] for name, one in models.items() if "failed" not in one}
    kinds = sorted(
        {kind for ms in times.values() for kind in ms},
        key=lambda kind: (kind == "other", -max(ms[kind] for ms in times.values())),
    )
    rows: list[Sequence[object]] = [
        (kind, *(f"{ms[kind] / sum(ms.values()):.1%}" for ms in times.values())) for kind in kinds
    ]
    steps = (f"{models[name]['step_ms']:,.1f}" for name in times)
    return table(("", *times), [*rows, ("ms per step, without profiler", *steps)])


def epochs_table(models: Record) -> str:
    """Return seconds per epoch of each model, validation included."""
    rows: list[Sequence[object]] = []
    for name, result in models.items():
        if "failed" in result:
            rows.append((f"`{name}`", f"failed: {result['failed']}", *[""] * 3))
            continue
        seconds = (f"{result[key]:.1f}" for key in ("epoch_s_first", "epoch_s_median"))
        rate = f"{result['train_images_per_s']:,.0f}"
        rows.append((f"`{name}`", result["input_px"], *seconds, rate))
    return table(("model", "px", "first epoch, s", "median, s", "images/s"), rows)


def _rates(loop: Record) -> str:
    if "failed" in loop:
        return "failed"
    return spread(loop["images_per_s"], 1) if loop else ""


def _lead(loops: Record) -> str:
    """Return minet's median rate relative to the fastest competitor's."""
    rates = {
        name: median(loop["images_per_s"]) for name, loop in loops.items() if "failed" not in loop
    }
    peers = [rate for name, rate in rates.items() if not name.startswith("minet")]
    return f"{rates['minet'] / max(peers):.2f}" if peers and "minet" in rates else ""
