"""Tables of benchmarks/results/data.json for documents."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.common import spread, table

Record = Mapping[str, Any]

_CONTEST = ("", "images/s", "first epoch, s", "of the limit", "minet = 1", "pixels")


def data_tables(record: Record) -> dict[str, str]:
    """Give each table by a name for its place in a document."""
    makers = {
        "prepare": contest_table,
        "prepare light": contest_table,
        "steps": steps_table,
        "read jpg": contest_table,
        "read raw": contest_table,
        "growth": growth_table,
        "start": start_table,
    }
    return {f"data {part}": make(record[part]) for part, make in makers.items() if part in record}


def contest_table(group: Record) -> str:
    """Warm epochs, the first one with its opening, and ratios to the limit and to minet.

    Who failed stands at the end with the reason.
    """
    limit, ours = _median_of(group, "limit"), _median_of(group, "minet")
    rows = []
    for name, found in sorted(group.items(), key=lambda item: -_rate(item[1])):
        if "failed" in found:
            rows.append((name, f"failed: {found['failed']}", *[""] * 4))
            continue
        rate = _rate(found)
        label = f"**{name}**" if name.startswith("minet") else name
        cold = "" if name.startswith("limit") else spread(found["cold_s"], 2)
        rows.append(
            (
                *(label, spread(found["images_per_s"]), cold),
                *(_share(rate, limit), f"{rate / ours:.2f}" if ours else "", _pixels(found)),
            )
        )
    return table(_CONTEST, rows)


def steps_table(kinds: Record) -> str:
    """Milliseconds of one thread an image by step, a column a set of photographs."""
    names = list(next(iter(kinds.values())))
    rows = [(name, *(spread(found[name], 2) for found in kinds.values())) for name in names]
    sums = (f"{sum(median(found[name]) for name in names):.2f}" for found in kinds.values())
    return table(("ms an image", *kinds), [*rows, ("together", *sums)])


def growth_table(sizes: Record) -> str:
    """Seconds, microseconds an image and peak memory by the number of images."""
    rows = [
        (
            *(f"{int(size):,}", spread(found["seconds"], 1)),
            *(f"{median(found['seconds']) / int(size) * 1e3:.2f}", spread(found["peak_mb"])),
        )
        for size, found in sizes.items()
        if "failed" not in found
    ]
    return table(("images", "seconds", "ms an image", "peak memory, MB"), rows)


def start_table(found: Record) -> str:
    """Seconds until the first step of training has ended, and of each stage's imports."""
    if "failed" in found:
        return table(("", "seconds"), [("first step of training", f"failed: {found['failed']}")])
    rows = [("first step of training", spread(found["first_step_s"], 1), "")]
    rows += [
        (
            "Python alone" if name == "nothing" else f"import stages.{name}",
            spread(stage["seconds"], 2),
            ", ".join(stage["imports"]),
        )
        for name, stage in found["stages"].items()
    ]
    return table(("", "seconds", "brings along"), rows)


def _rate(found: Record) -> float:
    return median(found["images_per_s"]) if "images_per_s" in found else 0.0


def _median_of(group: Record, start: str) -> float:
    """Rate of the first in the table whose name starts so; 0 if there is none."""
    return next((_rate(found) for name, found in group.items() if name.startswith(start)), 0.0)


def _share(rate: float, limit: float) -> str:
    return f"{rate / limit:.0%}" if limit else ""


def _pixels(found: Record) -> str:
    if "same_pixels" not in found:
        return ""
    said = "identical" if found["same_pixels"] else f"within {found['max_difference']}"
    return said if found["each_once"] else f"{said}, not each image once"
