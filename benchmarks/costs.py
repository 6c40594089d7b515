"""Count every model of the table, and what the reports print: python -m benchmarks.costs.

Writes benchmarks/results/costs.json and the tables of docs/costs.md; half a minute.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import put_between, table
from benchmarks.profilers import profiler_figures
from benchmarks.published import MEANING, PUBLISHED, TRUE, as_profiled
from minet.core.files import write_json
from minet.cost.counter import count_costs
from minet.models.registry import MODELS, build

RESULTS, PAGE = Path("benchmarks/results/costs.json"), Path("docs/costs.md")
_NUM_CLASSES, _SIDE_PX = 50, 224


def main() -> None:
    """Count, write the record, put the tables into the page."""
    torch.manual_seed(0)
    record = {name: _costs(name) for name in MODELS}
    write_json(RESULTS, record)
    put_between(PAGE, "models", models_table(record))
    put_between(PAGE, "published", published_table(record))


def _costs(name: str) -> dict[str, Any]:
    """Costs of a model, and the figures of other profilers of it as it was published."""
    shape = {"channels": 3, "image_size": _SIDE_PX}
    record = count_costs(build(name, num_classes=_NUM_CLASSES), **shape)
    figures = profiler_figures(as_profiled(name, num_classes=_NUM_CLASSES), **shape)
    return record | {"profilers": figures}


def models_table(record: Mapping[str, Any]) -> str:
    """Show what each model costs at 50 classes and 224 px."""
    header = (
        "model",
        "parameters",
        "MACs (M)",
        "of which products (M)",
        "activations (MB)",
        "depth",
    )
    rows = [
        (
            f"`{name}`",
            f"{costs['parameters']:,}",
            f"{costs['macs'] / 1e6:,.1f}",
            f"{costs['macs_product'] / 1e6:,.1f}" if costs["macs_product"] else "",
            f"{costs['activation_mb']:,.1f}",
            costs["depth"],
        )
        for name, costs in record.items()
    ]
    return table(header, rows)


def published_table(record: Mapping[str, Any]) -> str:
    """Show each published figure, what gives it, and the true answer."""
    header = ("report, model", "column", "printed", "computed so", "what it is", "true")
    rows = []
    for row in PUBLISHED:
        costs = record[row.model]
        source = costs if row.figure in costs else costs["profilers"]
        key, unit, what = TRUE[row.figure]
        rows.append(
            (
                f"{row.report}, `{row.model}`",
                row.column,
                row.printed,
                f"{source[row.figure] / row.unit:.4f}",
                MEANING[row.figure],
                f"{costs[key] / unit:,.2f} {what}",
            )
        )
    return table(header, rows)


if __name__ == "__main__":
    main()
