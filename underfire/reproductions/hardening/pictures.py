"""Draw histograms and curves of several networks, side by side in one SVG picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Values = Sequence[float]
_LINES = ("-", "--", ":", "-.")


def histograms(panels: Mapping[str, Mapping[str, Values]], along: str) -> str:
    """Return an SVG with a panel for each title: the histogram of each network's values; the SVG is deterministic."""

    def draw(axes: Any, series: Mapping[str, Values]) -> None:
        top = max(float(np.max(values)) for values in series.values())
        for line, (label, values) in zip(_LINES, series.items(), strict=False):
            axes.hist(values, bins=40, range=(0, top), histtype="step", linestyle=line, label=label, linewidth=1.5)

    return _side_by_side(panels, draw, along, "number")


def curves(panels: Mapping[str, Mapping[str, tuple[Values, Values]]], along: str, up: str) -> str:
    """Return an SVG with a panel for each title: a curve `(x, y)` for each network; the SVG is deterministic."""

    def draw(axes: Any, series: Mapping[str, tuple[Values, Values]]) -> None:
        for line, (label, (x, y)) in zip(_LINES, series.items(), strict=False):
            axes.plot(x, y, line, marker="o", markersize=3, label=label)
        axes.set_ylim(-2, 102)

    return _side_by_side(panels, draw, along, up)


def _side_by_side(panels: Mapping[str, Any], draw: Callable[[Any, Any], None], along: str, up: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "underfire", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((3.2 * len(panels), 2.8), layout="constrained")
        FigureCanvasSVG(figure)
        found = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, series) in zip(found, panels.items(), strict=True):
            draw(axes, series)
            axes.set_title(title)
            axes.set_xlabel(along)
        found[0].set_ylabel(up)
        found[0].legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    return text.getvalue()
