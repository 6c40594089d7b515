"""Count the costs of every model, and reproduce published counts: python -m benchmarks.costs.

Writes benchmarks/results/costs.json and the tables of docs/costs.md; takes half a minute. Needs the
packages of `benchmarks.profilers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import replace_between, table
from benchmarks.profilers import profiler_figures
from benchmarks.published import ACTUAL, MEANING, PUBLISHED, as_profiled
from minet.core.files import write_json
from minet.cost.counter import count_costs
from minet.models.registry import MODELS, build

RESULTS, PAGE = Path("benchmarks/results/costs.json"), Path("docs/costs.md")
_NUM_CLASSES, _IMAGE_SIZE = 50, 224


def main() -> None:
    """Count all models, write the record, update the page."""
    torch.manual_seed(0)
    record = {name: _costs(name) for name in MODELS}
    write_json(RESULTS, record)
    replace_between(PAGE, "models", models_table(record))
    replace_between(PAGE, "published", published_table(record))


def _costs(name: str) -> dict[str, Any]:
    """Return a model's costs, with the profilers' figures of the published form of the model."""
    shape = {"channels": 3, "image_size": _IMAGE_SIZE}
    record = count_costs(build(name, num_classes=_NUM_CLASSES), **shape)
    figures = profiler_figures(as_profiled(name, num_classes=_NUM_CLASSES), **shape)
    return record | {"profilers": figures}


def models_table(record: Mapping[str, Any]) -> str:
    """Return the table of each model's costs at 50 classes and 224 px."""
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
    """Return the table of published figures: reproduced value, meaning, actual value."""
    header = ("report, model", "column", "printed", "reproduced", "meaning", "actual")
    rows = []
    for row in PUBLISHED:
        costs = record[row.model]
        source = costs if row.figure in costs else costs["profilers"]
        key, unit, what = ACTUAL[row.figure]
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
