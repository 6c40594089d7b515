"""Tables of benchmarks/results/train-*.json for documents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import spread, table
from minet.core.files import read_json

Record = Mapping[str, Any]


def train_tables(folder: Path) -> dict[str, str]:
    """Give each table of the records that there are, by a name for its place in a document."""
    records = {path.stem: read_json(path) for path in sorted(folder.glob("train-*.json"))}
    return {
        name: text
        for stem, record in records.items()
        for name, text in tables(stem, record).items()
    }


def tables(stem: str, record: Record) -> dict[str, str]:
    """Give the tables of one record, "<stem> <part>" each."""
    makers = {
        "loops": loops_table,
        "stall": stall_table,
        "mfu": mfu_table,
        "trace": trace_table,
        "epochs": epochs_table,
    }
    return {f"{stem} {part}": make(record[part]) for part, make in makers.items() if part in record}


def loops_table(sizes: Record) -> str:
    """Images a second of each loop, and minet's over the fastest of the others."""
    names = list(dict.fromkeys(name for found in sizes.values() for name in found["competitors"]))
    rows, reasons = [], []
    for found in sizes.values():
        loops = found["competitors"]
        reasons += [
            f"{name}, {found['model']}, batch {found['batch_size']}: {loop['failed']}"
            for name, loop in loops.items()
            if "failed" in loop
        ]
        cells = [_rates(loops.get(name, {})) for name in names]
        rows.append((found["model"], found["batch_size"], *cells, _lead(loops)))
    ours = (f"**{name}**" if name.startswith("minet") else name for name in names)
    text = table(("model", "batch", *ours, "minet / best peer"), rows)
    return "\n".join([text, *(f"\nFailed: {reason}" for reason in reasons)])


def stall_table(models: Record) -> str:
    """Images a second of the bare step and of minet's loop, and their ratio round by round."""
    rows: list[Sequence[object]] = []
    for model, found in models.items():
        if "failed" in found:
            rows.append((model, f"failed: {found['failed']}", *[""] * 4))
            continue
        rates = found["images_per_s"]
        cells = [spread(rates["memory"], 1)]
        for way in ("stream", "resident"):
            ratios = [a / b for a, b in zip(rates[way], rates["memory"], strict=True)]
            cells += [spread(rates[way], 1), spread(ratios, 3)]
        rows.append((model, *cells))
    return table(("images/s", "bare step", "streamed", "ratio", "resident", "ratio"), rows)


def mfu_table(models: Record) -> str:
    """Show what of the device's peak minet's step uses, in 10^9 operations a second."""
    rows: list[Sequence[object]] = []
    for name, found in models.items():
        if "failed" in found:
            rows.append((name, f"failed: {found['failed']}", *[""] * 3))
            continue
        peak, rates = found["peak_flops_per_s"], found["images_per_s"]
        done = [rate * found["step_flops"] for rate in rates]
        rows.append(
            (
                *(name, spread(rates, 1), spread([one / 1e9 for one in done])),
                *(f"{peak / 1e9:,.0f}", f"{median(done) / peak:.0%}"),
            )
        )
    return table(("", "images/s", "GFLOP/s", "peak, GFLOP/s", "share"), rows)


def trace_table(models: Record) -> str:
    """Shares of the profiled time of a step by kind of operation, a column a model."""
    found = {name: one["ms_by_kind"] for name, one in models.items() if "failed" not in one}
    kinds = sorted(
        {kind for spent in found.values() for kind in spent},
        key=lambda kind: (kind == "other", -max(spent[kind] for spent in found.values())),
    )
    rows: list[Sequence[object]] = [
        (kind, *(f"{spent[kind] / sum(spent.values()):.1%}" for spent in found.values()))
        for kind in kinds
    ]
    whole = (f"{models[name]['step_ms']:,.1f}" for name in found)
    return table(("", *found), [*rows, ("ms of the step, not profiled", *whole)])


def epochs_table(models: Record) -> str:
    """Seconds an epoch of each model, validation included."""
    rows: list[Sequence[object]] = []
    for name, found in models.items():
        if "failed" in found:
            rows.append((f"`{name}`", f"failed: {found['failed']}", *[""] * 3))
            continue
        seconds = (f"{found[key]:.1f}" for key in ("epoch_s_first", "epoch_s_median"))
        rate = f"{found['train_images_per_s']:,.0f}"
        rows.append((f"`{name}`", found["input_px"], *seconds, rate))
    return table(("model", "px", "first epoch, s", "median, s", "images/s"), rows)


def _rates(loop: Record) -> str:
    if "failed" in loop:
        return "failed"
    return spread(loop["images_per_s"], 1) if loop else ""


def _lead(loops: Record) -> str:
    """Median of minet's rate over that of the fastest peer."""
    rates = {
        name: median(loop["images_per_s"]) for name, loop in loops.items() if "failed" not in loop
    }
    peers = [rate for name, rate in rates.items() if not name.startswith("minet")]
    return f"{rates['minet'] / max(peers):.2f}" if peers and "minet" in rates else ""
