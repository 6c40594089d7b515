"""Charts of the zoo's page as Vega-Lite specs; the page's script supplies the named data.

Text and lines are drawn in `currentColor`, so that charts follow the page's light or dark scheme.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

# Okabe and Ito's palette for the colour-blind, the colours that are visible on white and on black
_COLOURS = ["#1a86c8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
# for the largest family of rows: the same, then others of d3's category20
_CURVE_COLOURS = [
    *_COLOURS,
    "#7f7f7f", "#8c564b", "#bcbd22", "#9467bd", "#aec7e8",
    "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94",
]  # fmt: skip
_GRID = {"gridColor": "currentColor", "gridOpacity": 0.12}
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
_CONFIG = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**_TEXT, **_GRID, "domainColor": "currentColor", "tickColor": "currentColor"},
    "legend": {**_TEXT, "orient": "top", "labelLimit": 260, "symbolOpacity": 1},
}


def charts(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the specs by name of the chart in the page; `points` are the data named "rows".

    Scales of costs span all points, so that a filter does not move the rest.
    """
    made = {
        "macs": _cost("macs", "multiply-adds of one image", points),
        "parameters": _cost("parameters", "parameters", points),
        "loss": _curve("loss", "cross-entropy (nats)"),
        "accuracy": _curve("accuracy", "accuracy"),
        "lr": _learning_rate(),
        "confusion": _confusion(),
    }
    return {name: _finished(chart) for name, chart in made.items()}


def _cost(column: str, title: str, points: Sequence[Mapping[str, Any]]) -> Any:
    """Accuracy with its interval over a cost; published accuracies are hollow diamonds."""
    chart = alt.Chart(alt.NamedData("rows"))
    costs = [point[column] for point in points]
    span = alt.Scale(type="log", nice=False, domain=[min(costs) / 1.3, max(costs) * 1.3])
    x = alt.X(f"{column}:Q", scale=span, title=title, axis=alt.Axis(format="~s"))
    reports = list(dict.fromkeys(point["report"] for point in points))
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(reports))]
    colour = alt.Color("report:N", scale=alt.Scale(domain=reports, range=colours), title="report")
    tooltip = [
        alt.Tooltip("row:N"),
        alt.Tooltip("model:N"),
        alt.Tooltip("accuracy:Q", format=".3f", title="ours"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("published:Q", format=".3f"),
        alt.Tooltip("published_of:N", title="published split"),
        alt.Tooltip(f"{column}:Q", format=",", title=title),
    ]
    y = alt.Y("low:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]))
    interval = chart.mark_rule(opacity=0.7).encode(x=x, y=y, y2="high:Q", color=colour)
    ours = chart.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y="accuracy:Q", color=colour, tooltip=tooltip
    )
    published = (
        chart.transform_filter("isValid(datum.published)")
        .mark_point(shape="diamond", filled=False, size=70, opacity=1)
        .encode(x=x, y="published:Q", color=colour, tooltip=tooltip)
    )
    return alt.layer(interval, published, ours).properties(height=300)


def _curve(column: str, title: str) -> Any:
    """Training and validation by epoch, a colour per row."""
    return _by_epoch(alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False))).encode(
        strokeDash=alt.StrokeDash(
            "split:N",
            scale=alt.Scale(domain=["validation", "training"], range=[[1, 0], [4, 3]]),
            legend=None,  # the page has it as text
        )
    )


def _learning_rate() -> Any:
    y = alt.Y("lr:Q", title="learning rate", axis=alt.Axis(format=".1e"))
    return _by_epoch(y).transform_filter("datum.split == 'training'")


def _by_epoch(y: alt.Y) -> Any:
    integers = alt.Axis(tickMinStep=1, labelExpr="datum.value % 1 ? '' : format(datum.value, 'd')")
    chart = alt.Chart(alt.NamedData("curves")).mark_line(point=alt.OverlayMarkDef(size=18))
    return chart.encode(
        x=alt.X("epoch:Q", axis=integers, scale=alt.Scale(nice=False)),
        y=y,
        color=alt.Color("row:N", scale=alt.Scale(range=_CURVE_COLOURS), legend=None),
        detail="seed:N",
        tooltip=["row:N", "split:N", "seed:N", "epoch:Q", y.shorthand],
    ).properties(height=240)


def _confusion() -> Any:
    """Confusion matrix: opacity is the fraction of the true class, on a square-root scale.

    The root makes a fifth of a class visible, on black too.
    """
    axis = alt.Axis(labelLimit=160, grid=False)
    return (
        alt.Chart(alt.NamedData("confusion"))
        .mark_rect(color=_COLOURS[0])
        .encode(
            x=alt.X("predicted:N", sort=None, axis=axis, title="predicted"),
            y=alt.Y("true:N", sort=None, axis=axis, title="true"),
            opacity=alt.Opacity(
                "fraction:Q",
                scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]),
                legend=alt.Legend(
                    format=".0%", title="fraction of the true class", values=[0.2, 0.5, 1]
                ),
            ),
            tooltip=["true:N", "predicted:N", alt.Tooltip("fraction:Q", format=".1%"), "images:Q"],
        )
        .properties(height=360)
    )


def _finished(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(width="container").to_dict()
    return {**spec, "config": _CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}
