"""Draw rates against the size of an attack, one small chart for each row of a table, in one SVG picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from underfire.records import Interval

ACROSS = 4  # charts in one row


def curves(
    radii: Mapping[str, float],
    ours: Mapping[str, Sequence[Interval]],
    published: Mapping[str, Sequence[float]],
    measured: str = "accuracy",
) -> str:
    """Return an SVG with a chart for each row of a table: our rates with a 95 % band, and the published as circles.

    The SVG is deterministic.

    Args:
        radii: the sizes of the attack, by their names.
        ours: the rates at each size, by the name of the row, such as a network or an attack.
        published: the same of the paper, for the rows that it has; NaN at a size that it does not have.
        measured: what the rates are.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    x, ticks = list(radii.values()), list(radii)
    down = math.ceil(len(ours) / ACROSS)
    with matplotlib.rc_context({"svg.hashsalt": "underfire", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((2.1 * ACROSS, 1.7 * down + 0.3), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False).flat
        for axes, (name, rates) in zip(grid, ours.items(), strict=False):
            # our rates with their band, and those of the paper
            axes.fill_between(x, [r.low for r in rates], [r.high for r in rates], color="#9db8d8", linewidth=0)
            axes.plot(x, [r.value for r in rates], color="#1f4e8c", marker=".", linewidth=1.2)
            if name in published:
                axes.plot(x, published[name], "o", color="#b3400a", markerfacecolor="none", markersize=6)
            axes.set_title(name, fontsize=9)
        for axes in figure.axes[len(ours) :]:
            axes.set_visible(False)
        for axes in figure.axes[: len(ours)]:
            axes.set_ylim(0, 1.02)
            axes.set_xticks([x[0], x[-1]], [ticks[0], ticks[-1]])
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel("eps", fontsize=9)
        figure.supylabel(measured, fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    return text.getvalue()
