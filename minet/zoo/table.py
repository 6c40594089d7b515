"""The zoo's results as text: every row with its published accuracy and its baseline's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minet.augment.channels import CHANNEL_SETS

Record = Mapping[str, Any]
Column = tuple[str, Callable[[Record], str]]  # heading, cell of a row that has its `name`

# figures shown in the column of published accuracies, by preference, and the prefix of the cell
PUBLISHED = {"accuracy": "", "val_accuracy": "val ", "kaggle": "kaggle "}
# notes on budgets, printed next to their results
MEANING = {
    "smoke": ": seconds a row, all weights random at the start. It shows that the rows run; its "
    "accuracies say nothing about the models"
}
LEFT_ALIGNED = {"row", "report", "model", "baseline"}
EN_DASH, MINUS, AT_LEAST = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{GREATER-THAN OR EQUAL TO}"


def zoo_table(record: Record) -> str:
    """Return the rows of zoo/comparison.json as a markdown table."""
    header = [name for name, _ in columns(record)]
    lines = [{**line, "row": f"`{line['row']}`"} for line in table_cells(record)]
    return _markdown(header, [[*line.values()] for line in lines])


def columns(record: Record) -> list[Column]:
    """Return headings with the functions that make their cells.

    A target ratio that all rows share is in the heading, several are in the cells.
    """
    targets = _target_ratios(record)
    shared = len(targets) == 1
    return [
        ("row", lambda row: str(row["name"])),
        ("report", lambda row: str(row["report"])),
        ("model", lambda row: str(row["model"])),
        ("published", lambda row: _published(row["published"])),
        ("ours", _accuracy),
        ("baseline", _of_comparison(lambda comparison: str(comparison["row"]))),
        ("difference", _of_comparison(difference_cell)),
        ("p", _of_comparison(_p_cell)),
        ("ratio", _of_comparison(lambda c: "" if c["target_ratio"] is None else ratio_cell(c))),
        (
            f"{_at_least(*targets)}?" if shared else "target",
            _of_comparison(lambda comparison: _verdict(comparison, with_target=not shared)),
        ),
        ("parameters", lambda row: f"{row['cost']['parameters']:,}"),
        ("MACs (M)", lambda row: f"{row['cost']['macs'] / 1e6:.1f}"),
    ]


def table_cells(record: Record) -> list[dict[str, str]]:
    """Return each row's cells by heading.

    95 % intervals are in parentheses, the standard deviation over seeds follows `±`.
    """
    cells = columns(record)
    return [
        {heading: cell({**row, "name": name}) for heading, cell in cells}
        for name, row in record["rows"].items()
    ]


def reference(published: Record) -> tuple[str, float] | None:
    """Return the published accuracy to compare with, after the prefix that names its split."""
    for key, prefix in PUBLISHED.items():
        if published.get(key) is not None:
            return prefix, published[key]
    return None


def transposed(record: Record) -> str:
    """Return the table with a column for each row, for a few rows on a terminal."""
    lines = table_cells(record)
    blocks = [[*lines[0]], *([*line.values()] for line in lines)]
    widths = [max(map(len, block)) for block in blocks]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*blocks, strict=True)
    )


def channel_table(record: Record) -> str:
    """Return accuracies by channel set, published / ours, of the rows that are about channels."""
    lines = [
        [label if label not in record["rows"] else f"`{label}`", *cells.values()]
        for label, cells in channel_lines(record).items()
    ]
    return _markdown(["row", *CHANNEL_SETS], lines)


def channel_lines(record: Record) -> dict[str, dict[str, str]]:
    """Return cells by line and channel set; rows of one `channels_line` share a line.

    Where several rows share a line, each fills only the set that it was trained on.
    """
    groups: dict[str, list[Record]] = {}
    for name, row in record["rows"].items():
        if row["channels_line"] or row["published"].get("channels"):
            groups.setdefault(row["channels_line"] or name, []).append(row)
    lines = {}
    for label, rows in groups.items():
        line = dict.fromkeys(CHANNEL_SETS, "")
        for row in rows:
            published, ours = row["published"].get("channels") or {}, row["channels"]
            sets = list(CHANNEL_SETS) if len(rows) == 1 else [row["recipe"]["channels"]]
            line |= {key: _channel_cell(published.get(key), ours.get(key)) for key in sets}
        lines[label] = line
    return lines


def difference_cell(comparison: Record) -> str:
    """Return the difference of accuracies with its interval and signs."""
    middle, low, high = (
        f"{comparison['difference' + end]:+z.3f}".replace("-", MINUS)
        for end in ("", "_low", "_high")
    )
    return f"{middle} ({low} to {high})"


def ratio_cell(comparison: Record) -> str:
    """Return the ratio of accuracies with its interval; a dash for what has no value."""
    if comparison["ratio"] is None:
        return "-"
    high = "-" if comparison["ratio_high"] is None else f"{comparison['ratio_high']:.2f}"
    return f"{comparison['ratio']:.2f} ({comparison['ratio_low']:.2f} to {high})"


def _of_comparison(cell: Callable[[Record], str]) -> Callable[[Record], str]:
    """Return a cell of the row that is empty without a comparison."""
    return lambda row: cell(row["comparison"]) if row["comparison"] else ""


def _p_cell(comparison: Record) -> str:
    p = comparison["p_holm"]
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(comparison: Record, *, with_target: bool) -> str:
    target = comparison["target_ratio"]
    if target is None:
        return ""
    prefix = f"{_at_least(target)}: " if with_target else ""
    return f"{prefix}{comparison['verdict']}"


def _target_ratios(record: Record) -> set[float]:
    comparisons = (row["comparison"] or {} for row in record["rows"].values())
    return {c["target_ratio"] for c in comparisons if c.get("target_ratio") is not None}


def _at_least(ratio: float) -> str:
    return f"{AT_LEAST} {100 * ratio:g} %"


def _published(published: Record) -> str:
    shown = reference(published)
    return "-" if shown is None else f"{shown[0]}{round(shown[1], 4)}"


def _accuracy(row: Record) -> str:
    std = "" if row["accuracy_sd"] is None else f" ± {row['accuracy_sd']:.3f}"
    interval = f"{row['accuracy_low']:.3f}{EN_DASH}{row['accuracy_high']:.3f}"
    return f"{row['accuracy']:.3f}{std} ({interval})"


def _channel_cell(published: float | None, ours: Record | None) -> str:
    if published is None and ours is None:
        return ""
    cell = "-" if ours is None else f"{ours['accuracy']:.3f}"
    return f"{'-' if published is None else published} / {cell}"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    marks = ["---" if column in LEFT_ALIGNED else "---:" for column in header]
    lines = ([cell.replace("|", r"\|") for cell in line] for line in (header, marks, *rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
