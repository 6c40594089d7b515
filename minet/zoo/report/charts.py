"""Charts of the zoo's page as Vega-Lite: shapes here, data by name, given by the page's script.

Words and lines are drawn in `currentColor`, so that a chart follows the page from light to dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

# Okabe and Ito's colours, told apart by the colour-blind, those that show on white and on black
_COLOURS = ["#1a86c8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
# for the largest family of rows: theirs first, then what is left of d3's
_MANY = [
    *_COLOURS,
    *("#7f7f7f", "#8c564b", "#bcbd22", "#9467bd", "#aec7e8", "#ffbb78", "#98df8a", "#ff9896"),
    *("#c5b0d5", "#c49c94"),
]
_FAINT = {"gridColor": "currentColor", "gridOpacity": 0.12}
_WORDS = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
_CONFIG = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**_WORDS, **_FAINT, "domainColor": "currentColor", "tickColor": "currentColor"},
    "legend": {**_WORDS, "orient": "top", "labelLimit": 260, "symbolOpacity": 1},
}


def charts(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give each chart by the name of its place in the page; `points` are what "rows" will hold.

    Scales of costs span them all, so that dots stay where they are when some are filtered out.
    """
    made = {
        "macs": _cost("macs", "multiply-adds of one image", points),
        "parameters": _cost("parameters", "parameters", points),
        "loss": _curve("loss", "cross-entropy (nats)"),
        "accuracy": _curve("accuracy", "accuracy"),
        "lr": _rates(),
        "confusion": _confusion(),
    }
    return {name: _finished(chart) for name, chart in made.items()}


def _cost(column: str, title: str, points: Sequence[Mapping[str, Any]]) -> Any:
    """Accuracy with its interval over a cost; what was published is a hollow diamond."""
    chart = alt.Chart(alt.NamedData("rows"))
    costs = [point[column] for point in points]
    span = alt.Scale(type="log", nice=False, domain=[min(costs) / 1.3, max(costs) * 1.3])
    x = alt.X(f"{column}:Q", scale=span, title=title, axis=alt.Axis(format="~s"))
    reports = list(dict.fromkeys(point["report"] for point in points))
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(reports))]
    colour = alt.Color("report:N", scale=alt.Scale(domain=reports, range=colours), title="report")
    said = [
        alt.Tooltip("row:N"),
        alt.Tooltip("model:N"),
        alt.Tooltip("accuracy:Q", format=".3f", title="ours"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("published:Q", format=".3f"),
        alt.Tooltip("published_of:N", title="published of"),
        alt.Tooltip(f"{column}:Q", format=",", title=title),
    ]
    y = alt.Y("low:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]))
    interval = chart.mark_rule(opacity=0.7).encode(x=x, y=y, y2="high:Q", color=colour)
    ours = chart.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y="accuracy:Q", color=colour, tooltip=said
    )
    published = (
        chart.transform_filter("isValid(datum.published)")
        .mark_point(shape="diamond", filled=False, size=70, opacity=1)
        .encode(x=x, y="published:Q", color=colour, tooltip=said)
    )
    return alt.layer(interval, published, ours).properties(height=300)


def _curve(column: str, title: str) -> Any:
    """Draw training and validation by epoch, a colour for each row."""
    return _by_epoch(alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False))).encode(
        strokeDash=alt.StrokeDash(
            "split:N",
            scale=alt.Scale(domain=["validation", "training"], range=[[1, 0], [4, 3]]),
            legend=None,  # the page says it, in a colour of its own
        )
    )


def _rates() -> Any:
    y = alt.Y("lr:Q", title="learning rate", axis=alt.Axis(format=".1e"))
    return _by_epoch(y).transform_filter("datum.split == 'training'")


def _by_epoch(y: alt.Y) -> Any:
    whole = alt.Axis(tickMinStep=1, labelExpr="datum.value % 1 ? '' : format(datum.value, 'd')")
    chart = alt.Chart(alt.NamedData("curves")).mark_line(point=alt.OverlayMarkDef(size=18))
    return chart.encode(
        x=alt.X("epoch:Q", axis=whole, scale=alt.Scale(nice=False)),
        y=y,
        color=alt.Color("row:N", scale=alt.Scale(range=_MANY), legend=None),
        detail="seed:N",
        tooltip=["row:N", "split:N", "seed:N", "epoch:Q", y.shorthand],
    ).properties(height=240)


def _confusion() -> Any:
    """Shares of each true class, a row of the matrix; the stronger, the more.

    Their square roots are drawn: a fifth of a class is to be seen, on black too.
    """
    axis = alt.Axis(labelLimit=160, grid=False)
    return (
        alt.Chart(alt.NamedData("confusion"))
        .mark_rect(color=_COLOURS[0])
        .encode(
            x=alt.X("predicted:N", sort=None, axis=axis, title="predicted"),
            y=alt.Y("true:N", sort=None, axis=axis, title="true"),
            opacity=alt.Opacity(
                "share:Q",
                scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]),
                legend=alt.Legend(format=".0%", title="of the true class", values=[0.2, 0.5, 1]),
            ),
            tooltip=["true:N", "predicted:N", alt.Tooltip("share:Q", format=".1%"), "images:Q"],
        )
        .properties(height=360)
    )


def _finished(chart: Any) -> dict[str, Any]:
    whole: dict[str, Any] = chart.properties(width="container").to_dict()
    return {**whole, "config": _CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}
