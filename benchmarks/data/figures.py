"""Figures of benchmarks/results/data.json."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from minet.core.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_TITLES = {
    "prepare": "Preparing: JPEGs of 500 x 375 px, 0.6 bytes per pixel",
    "prepare light": "Preparing: JPEGs of 500 x 375 px, 0.28 bytes per pixel",
    "read jpg": "Reading JPEGs of 224 px",
    "read raw": "Reading raw pixels of 224 px",
}
_OURS, _THEIRS, _LIMIT = "#1f6fb4", "#b8b8b8", "#c0392b"


def draw(record: Record, path: Path) -> None:
    """Draw a bar per competitor: median and range of the repeats; the limit as a line."""
    from matplotlib import pyplot as plt

    groups = {part: _measured(record[part]) for part in _TITLES if part in record}
    groups = {part: group for part, group in groups.items() if group}
    if not groups:
        return
    heights = [len(group) + 1.2 for group in groups.values()]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, 0.36 * sum(heights) + 0.4),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for axis, (part, group) in zip(axes[:, 0], groups.items(), strict=True):
        _bars(axis, group)
        axis.set_title(_TITLES[part], loc="left", fontsize=11)
    axes[-1, 0].set_xlabel("images/s, warm epochs: median, minimum to maximum")
    _save(figure, path)


def draw_growth(sizes: Record, path: Path) -> None:
    """Draw seconds and peak memory of writing a beton over the number of images."""
    from matplotlib import pyplot as plt

    results = {int(size): result for size, result in sizes.items() if "failed" not in result}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, key, label in zip(
        axes, ("seconds", "peak_mb"), ("seconds", "peak memory, MB"), strict=True
    ):
        for size, result in results.items():
            points = [size] * len(result[key])
            axis.plot(points, result[key], "o", color=_OURS, alpha=0.5, ms=4, clip_on=False)
        medians = [median(result[key]) for result in results.values()]
        axis.plot(list(results), medians, color=_OURS)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0, top=1.25 * max(max(result[key]) for result in results.values()))
        axis.set_xlabel("images written")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.locator_params("x", nbins=5)
        axis.set_title(label, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _measured(group: Record) -> dict[str, list[float]]:
    """Return the rates of those that did not fail, the fastest last: drawn at the top."""
    rates = {
        name: result["images_per_s"] for name, result in group.items() if "failed" not in result
    }
    return dict(sorted(rates.items(), key=lambda item: median(item[1])))


def _bars(axis: "Axes", group: Mapping[str, list[float]]) -> None:
    for row, (name, rates) in enumerate(group.items()):
        middle = median(rates)
        limit = name.startswith("limit")
        color = _LIMIT if limit else _OURS if name.startswith("minet") else _THEIRS
        ends = [[middle - min(rates)], [max(rates) - middle]]
        axis.barh(row, middle, color=color, height=0.7, xerr=ends, error_kw={"lw": 1})
        axis.annotate(
            f"{middle:,.0f}",
            (max(rates), row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"fc": "white", "ec": "none", "pad": 0.8},  # covers the line of the limit
        )
        if limit:
            axis.axvline(middle, color=_LIMIT, lw=1, ls="--", zorder=0)
    axis.set_yticks(range(len(group)), list(group), fontsize=9)
    for label in axis.get_yticklabels():
        if label.get_text().startswith("minet"):
            label.set_fontweight("bold")
    axis.set_xlim(0, 1.15 * max(max(rates) for rates in group.values()))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: "Figure", path: Path) -> None:
    from matplotlib import pyplot as plt

    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=130, metadata={"Software": None})
    plt.close(figure)
