"""Markdown tables of benchmarks/results/dynamic-*.json."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.common import spread, table


def steps_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return milliseconds of a training step, static and dynamic, and their ratio.

    `records` by the memory allocator's mode.
    """
    header = ("batch", "memory", "resnet18", "dynamic_resnet18", "ratio", "grouped alone", "ratio")
    rows = []
    for memory, record in records.items():
        for batch_size, times in record["steps"].items():
            static, dynamic, grouped = times.values()
            cells = [spread(static)]
            for other in (dynamic, grouped):
                cells += [spread(other), ratio(other, static)]
            rows.append((batch_size, memory, *cells))
    return table(header, rows)


def forms_table(record: Mapping[str, Any], batch_size: str, digits: int = 0) -> str:
    """Return milliseconds of each form by shape, the chosen form in bold."""
    forms = ("static", "grouped", "products", "unfolded", "outputs", "winograd")
    shapes: dict[str, dict[str, list[float]]] = {}
    for name, times in record["forms"][batch_size].items():
        shape, _, form = name.partition(": ")
        shapes.setdefault(shape, {})[form] = times
    rows = []
    for name, by_form in shapes.items():
        shape, _, chosen = name.partition(", chosen ")
        cells = [spread(by_form[form], digits) if form in by_form else "" for form in forms]
        cells[forms.index(chosen)] = f"**{cells[forms.index(chosen)]}**"
        rows.append((shape, *cells))
    return table(("channels, image, kernel", *forms), rows)


def generated_table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return milliseconds of generated first convolutions, alone and in the whole network."""
    rows = []
    for part, batches in parts.items():
        for batch_size, by_name in batches.items():
            first = next(iter(by_name.values()))
            rows += [
                (f"{part}, batch {batch_size}: {name}", spread(times), ratio(times, first))
                for name, times in by_name.items()
            ]
    return table(("", "ms", "ratio"), rows)


def ratio(times: list[float], static: list[float]) -> str:
    """Return the median of the ratios, repeat by repeat."""
    return f"{median(a / b for a, b in zip(times, static, strict=True)):.2f}"
