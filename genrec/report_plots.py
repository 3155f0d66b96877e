"""Plots of an evaluation as SVG text to put into a page: text stays text, ink takes the page's colour.

Drawn without pyplot, so nothing global is touched and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Of Okabe and Ito, then of Tol's muted scheme: told apart by colour-blind people, and enough for every baseline.
_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a8a8a"),
    *("#882255", "#ddcc77", "#332288", "#999933", "#44aa99", "#661100"),
)
_MODEL_COLOUR = "#d55e00"  # the same in every plot, and no other method's
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "genrec",  # equal figures give equal bytes
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def bar_chart(names: Sequence[str], metrics: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """One panel of bars per metric: for each of `names` its (value, low, high). Returns SVG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.8 + 0.38 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for panel, (label, estimates) in zip(panels, metrics.items(), strict=True):
            values = [value for value, _, _ in estimates]
            below = [value - low for value, low, _ in estimates]
            above = [high - value for value, _, high in estimates]
            colours = [_MODEL_COLOUR if name == "model" else _COLOURS[0] for name in names]
            panel.barh(range(len(names)), values, xerr=(below, above), color=colours, ecolor=_INK, capsize=3)
            panel.set_yticks(range(len(names)), list(names))
            panel.set_xlabel(label)
            _tidy(panel)
        panels[0].invert_yaxis()
        return _svg(figure)


def group_chart(recall: Mapping[str, Mapping[str, float | None]]) -> str:
    """Bars of recall per popularity group, one colour per method; groups without cases stay empty. SVG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        panel = figure.subplots()
        groups = list(next(iter(recall.values()), {}))
        width = 0.8 / max(len(recall), 1)
        colours = _colours(list(recall))
        for number, (name, values) in enumerate(recall.items()):
            places = [place + number * width for place in range(len(groups))]
            heights = [values[group] or 0.0 for group in groups]
            panel.bar(places, heights, width=width, label=name, color=colours[name])
        centre = 0.4 - width / 2
        panel.set_xticks([place + centre for place in range(len(groups))], groups)
        panel.set_ylabel("recall")
        _legend(panel)
        return _svg(figure)


def recall_curves(curves: Mapping[str, Sequence[float]]) -> str:
    """Recall@k over k = 1, 2, …, one line per method. Returns SVG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        panel = figure.subplots()
        colours = _colours(list(curves))
        for name, values in curves.items():
            style = "-" if name == "model" else "--"
            panel.plot(range(1, len(values) + 1), values, style, label=name, color=colours[name])
        panel.set_xlabel("k")
        panel.set_ylabel("recall@k")
        panel.set_ylim(bottom=0)
        _legend(panel)
        return _svg(figure)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour per method, in order; the model has its own."""
    others = [name for name in names if name != "model"]
    return {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(others)} | {"model": _MODEL_COLOUR}


def _legend(panel: Axes) -> None:
    _tidy(panel)
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _tidy(panel: Axes) -> None:
    panel.patch.set_visible(False)
    panel.spines[["top", "right"]].set_visible(False)


def _svg(figure: Figure) -> str:
    figure.patch.set_visible(False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
