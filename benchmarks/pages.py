"""Put the tables of benchmarks/results into docs/performance.md: python -m benchmarks.pages."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import put_between, spread, table
from benchmarks.data.page import data_tables
from benchmarks.train.page import train_tables
from minet.core.files import read_json

PAGE, RESULTS = Path("docs/performance.md"), Path("benchmarks/results")


def main() -> None:
    """Rewrite every table from its record."""
    for name, text in tables(Path()).items():
        put_between(PAGE, name, text)


def tables(root: Path) -> dict[str, str]:
    """Give each table of the page by its marker; of training, those whose records there are."""
    steps, forms, stem, system = (
        read_json(root / RESULTS / f"dynamic-cpu-{part}.json")
        for part in ("steps", "forms", "stem", "system")
    )
    data = read_json(root / RESULTS / "data.json")
    return {
        **data_tables(data),
        **train_tables(root / RESULTS),
        "dynamic steps": steps_table({"kept": steps, "system's": system}),
        "dynamic forms": forms_table(forms, "32"),
        "generated": generated_table({"stem": stem["stem"], "network": forms["densenet"]}),
    }


def steps_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds of a training step of the static and the dynamic network, and their ratio."""
    header = ("batch", "memory", "resnet18", "dynamic_resnet18", "ratio", "grouped alone", "ratio")
    rows = []
    for memory, record in records.items():
        for count, times in record["steps"].items():
            static, dynamic, grouped = times.values()
            rows.append(
                (
                    *(count, memory, spread(static)),
                    *(spread(dynamic), ratio(dynamic, static)),
                    *(spread(grouped), ratio(grouped, static)),
                )
            )
    return table(header, rows)


def forms_table(record: Mapping[str, Any], count: str) -> str:
    """Milliseconds of each form by shape; the chosen one in bold."""
    forms = ("static", "grouped", "products", "unfolded", "outputs", "winograd")
    shapes: dict[str, dict[str, list[float]]] = {}
    for name, times in record["forms"][count].items():
        shape, _, form = name.partition(": ")
        shapes.setdefault(shape, {})[form] = times
    rows = []
    for name, found in shapes.items():
        shape, _, chosen = name.partition(", chosen ")
        cells = [spread(found[form]) if form in found else "" for form in forms]
        cells[forms.index(chosen)] = f"**{cells[forms.index(chosen)]}**"
        rows.append((shape, *cells))
    return table(("planes, image, kernel", *forms), rows)


def generated_table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds of generated first convolutions, alone and in the whole network."""
    rows = []
    for part, counts in parts.items():
        for count, times in counts.items():
            first = next(iter(times.values()))
            rows += [
                (f"{part}, batch {count}: {name}", spread(found), ratio(found, first))
                for name, found in times.items()
            ]
    return table(("", "ms", "ratio"), rows)


def ratio(times: list[float], static: list[float]) -> str:
    """Median of the ratios of runs that stood side by side."""
    return f"{median(a / b for a, b in zip(times, static, strict=True)):.2f}"


if __name__ == "__main__":
    main()
