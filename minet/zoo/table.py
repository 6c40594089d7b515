"""The zoo's results as markdown: every row beside what was published and beside its baseline."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minet.augment.channels import CHANNEL_SETS

Record = Mapping[str, Any]

# what may stand for a published accuracy, the best first, and how its cell begins
PUBLISHED = {"accuracy": "", "val_accuracy": "val ", "kaggle": "kaggle "}
# of budgets, said wherever their figures stand
MEANING = {
    "smoke": ": seconds a row, all from random weights. It shows that the rows run, and says "
    "nothing about the models"
}
LEFT = {"row", "report", "model", "against"}  # columns of words; those of figures are on the right
EN_DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def zoo_table(record: Record) -> str:
    """Give a line for every row of zoo/comparison.json, as markdown."""
    cells = table_cells(record)
    lines = [{**line, "row": f"`{line['row']}`"} for line in cells]
    return _table(columns(record), [[*line.values()] for line in lines])


def columns(record: Record) -> list[str]:
    """Name the columns; a share that all verdicts are about is named there, not with each."""
    rules = _rules(record)
    return [
        *("row", "report", "model", "published", "ours", "against", "difference", "p", "ratio"),
        f"{_percent(*rules)}?" if len(rules) == 1 else "rule",
        *("parameters", "MACs (M)"),
    ]


def table_cells(record: Record) -> list[dict[str, str]]:
    """Give each row's cells by column, as text.

    Brackets hold 95 % intervals, what follows `±` is the standard deviation over seeds.
    """
    names, name_rule = columns(record), len(_rules(record)) != 1
    lines = []
    for name, row in record["rows"].items():
        cells = [
            name,
            row["report"],
            row["model"],
            _published(row["published"]),
            _ours(row),
            *(_against(row["against"], name_rule=name_rule) if row["against"] else [""] * 5),
            f"{row['cost']['parameters']:,}",
            f"{row['cost']['macs'] / 1e6:.1f}",
        ]
        lines.append(dict(zip(names, cells, strict=True)))
    return lines


def reference(published: Record) -> tuple[str, float] | None:
    """Give what may stand for a published accuracy, and the word that says of what."""
    for key, prefix in PUBLISHED.items():
        if published.get(key) is not None:
            return prefix, published[key]
    return None


def transposed(record: Record) -> str:
    """Give the table turned, a column for each row, as a terminal shows a few of them."""
    lines = table_cells(record)
    blocks = [[*lines[0]], *([*line.values()] for line in lines)]
    widths = [max(map(len, block)) for block in blocks]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*blocks, strict=True)
    )


def channel_table(record: Record) -> str:
    """Give accuracies per channel set, published / ours, of the rows that are about them."""
    lines = [
        [label if label not in record["rows"] else f"`{label}`", *cells.values()]
        for label, cells in channel_lines(record).items()
    ]
    return _table(["row", *CHANNEL_SETS], lines)


def channel_lines(record: Record) -> dict[str, dict[str, str]]:
    """Give cells by line and channel set; rows of one `channels_line` are one line.

    Of several rows each fills the set that it was trained on, and no other.
    """
    together: dict[str, list[Record]] = {}
    for name, row in record["rows"].items():
        if row["channels_line"] or row["published"].get("channels"):
            together.setdefault(row["channels_line"] or name, []).append(row)
    lines = {}
    for label, rows in together.items():
        line = dict.fromkeys(CHANNEL_SETS, "")
        for row in rows:
            theirs, ours = row["published"].get("channels") or {}, row["channels"]
            sets = list(CHANNEL_SETS) if len(rows) == 1 else [row["recipe"]["channels"]]
            line |= {key: _channel_cell(theirs.get(key), ours.get(key)) for key in sets}
        lines[label] = line
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    marks = ["---" if column in LEFT else "---:" for column in header]
    lines = ([cell.replace("|", r"\|") for cell in line] for line in (header, marks, *rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rules(record: Record) -> set[float]:
    return {
        rule
        for row in record["rows"].values()
        if (rule := (row["against"] or {}).get("rule")) is not None
    }


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _published(published: Record) -> str:
    shown = reference(published)
    return "-" if shown is None else f"{shown[0]}{round(shown[1], 4)}"


def _ours(row: Record) -> str:
    deviation = "" if row["accuracy_sd"] is None else f" ± {row['accuracy_sd']:.3f}"
    interval = f"{row['accuracy_low']:.3f}{EN_DASH}{row['accuracy_high']:.3f}"
    return f"{row['accuracy']:.3f}{deviation} ({interval})"


def comparison_cells(against: Record) -> dict[str, str]:
    """Give difference, adjusted p and ratio of a comparison, intervals in brackets."""
    middle, low, high = (
        f"{against['difference' + end]:+z.3f}".replace("-", MINUS) for end in ("", "_low", "_high")
    )
    p = against["p_holm"]
    return {
        "difference": f"{middle} ({low} to {high})",
        "p": "< 0.001" if p < 0.001 else f"{p:.3f}",
        "ratio": _ratio(against),
    }


def _against(against: Record, *, name_rule: bool) -> list[str]:
    """Give the cells of a comparison: its baseline, difference, p, ratio and verdict."""
    cells = comparison_cells(against)
    begun = [against["row"], cells["difference"], cells["p"]]
    if against["rule"] is None:
        return [*begun, "", ""]
    rule = f"{_percent(against['rule'])}: " if name_rule else ""
    return [*begun, cells["ratio"], rule + against["verdict"]]


def _ratio(against: Record) -> str:
    if against["ratio"] is None:
        return "-"
    high = "-" if against["ratio_high"] is None else f"{against['ratio_high']:.2f}"
    return f"{against['ratio']:.2f} ({against['ratio_low']:.2f} to {high})"


def _channel_cell(theirs: float | None, ours: Record | None) -> str:
    if theirs is None and ours is None:
        return ""
    cell = "-" if ours is None else f"{ours['accuracy']:.3f}"
    return f"{'-' if theirs is None else theirs} / {cell}"
