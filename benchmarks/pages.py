"""Write the tables of benchmarks/results into docs/performance.md: python -m benchmarks.pages."""

from pathlib import Path

from benchmarks.common import replace_between
from benchmarks.data.page import data_tables
from benchmarks.dynamic_page import forms_table, generated_table, steps_table
from benchmarks.gpu.page import gpu_section
from benchmarks.train.page import train_tables
from minet.core.files import read_json

PAGE, RESULTS = Path("docs/performance.md"), Path("benchmarks/results")


def main() -> None:
    """Update every table of the page."""
    for name, text in tables(Path()).items():
        replace_between(PAGE, name, text)


def tables(root: Path) -> dict[str, str]:
    """Return the page's tables by marker name; of training, those whose records exist."""
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
        "gpu": gpu_section(root / RESULTS),
    }


if __name__ == "__main__":
    main()
