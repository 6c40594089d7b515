"""Markdown tables of benchmarks/results/data.json."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.common import spread, table

Record = Mapping[str, Any]

_HEADER = ("", "images/s", "first epoch, s", "of the limit", "minet = 1", "pixels")


def data_tables(record: Record) -> dict[str, str]:
    """Return the tables by their marker names."""
    makers = {
        "prepare": competitors_table,
        "prepare light": competitors_table,
        "steps": steps_table,
        "read jpg": competitors_table,
        "read raw": competitors_table,
        "growth": growth_table,
        "start": start_table,
    }
    return {f"data {part}": make(record[part]) for part, make in makers.items() if part in record}


def competitors_table(group: Record) -> str:
    """Return the speed of warm epochs, the time of the first, ratios to the limit and to minet.

    Failed competitors are last, with the reason.
    """
    limit, ours = _median_of(group, "limit"), _median_of(group, "minet")
    rows = []
    for name, result in sorted(group.items(), key=lambda item: -_rate(item[1])):
        if "failed" in result:
            rows.append((name, f"failed: {result['failed']}", *[""] * 4))
            continue
        rate = _rate(result)
        label = f"**{name}**" if name.startswith("minet") else name
        cold = "" if name.startswith("limit") else spread(result["cold_s"], 2)
        rows.append(
            (
                label,
                spread(result["images_per_s"]),
                cold,
                f"{rate / limit:.0%}" if limit else "",
                f"{rate / ours:.2f}" if ours else "",
                _pixels(result),
            )
        )
    return table(_HEADER, rows)


def steps_table(kinds: Record) -> str:
    """Return milliseconds per image of each step on one thread, a column per set."""
    names = list(next(iter(kinds.values())))
    rows = [(name, *(spread(times[name], 2) for times in kinds.values())) for name in names]
    sums = (f"{sum(median(times[name]) for name in names):.2f}" for times in kinds.values())
    return table(("ms per image", *kinds), [*rows, ("total", *sums)])


def growth_table(sizes: Record) -> str:
    """Return seconds, milliseconds per image and peak memory by the number of images."""
    rows = [
        (
            f"{int(size):,}",
            spread(result["seconds"], 1),
            f"{median(result['seconds']) / int(size) * 1e3:.2f}",
            spread(result["peak_mb"]),
        )
        for size, result in sizes.items()
        if "failed" not in result
    ]
    return table(("images", "seconds", "ms per image", "peak memory, MB"), rows)


def start_table(result: Record) -> str:
    """Return seconds to the end of the first training step, and of each stage's imports."""
    if "failed" in result:
        return table(("", "seconds"), [("first step of training", f"failed: {result['failed']}")])
    rows = [("first step of training", spread(result["first_step_s"], 1), "")]
    rows += [
        (
            "Python alone" if name == "nothing" else f"import stages.{name}",
            spread(stage["seconds"], 2),
            ", ".join(stage["imports"]),
        )
        for name, stage in result["stages"].items()
    ]
    return table(("", "seconds", "heavy imports"), rows)


def _rate(result: Record) -> float:
    return median(result["images_per_s"]) if "images_per_s" in result else 0.0


def _median_of(group: Record, prefix: str) -> float:
    """Return the median rate of the first name with the prefix; 0 if there is none."""
    return next((_rate(result) for name, result in group.items() if name.startswith(prefix)), 0.0)


def _pixels(result: Record) -> str:
    if "same_pixels" not in result:
        return ""
    text = "identical" if result["same_pixels"] else f"within {result['max_difference']}"
    return text if result["each_once"] else f"{text}, not each image once"
