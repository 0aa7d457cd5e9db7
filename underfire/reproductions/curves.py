"""Draw accuracies against the size of an attack, one small chart for each network, in one SVG picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from underfire.measures.statistics import clopper_pearson

ACROSS = 4  # charts in one row


def curves(
    radii: Mapping[str, float], ours: Mapping[str, Sequence[float]], published: Mapping[str, Sequence[float]], n: int
) -> str:
    """Return an SVG with a chart for each network: our accuracies with a 95 % band, and the published ones as circles.

    The SVG is deterministic.

    Args:
        radii: the sizes of the attack, by their names.
        ours: the accuracies at each size, by the name of the network.
        published: the same of the paper, for the networks that it has.
        n: the number of images.
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
        for axes, (name, values) in zip(grid, ours.items(), strict=False):
            # our accuracies with their band, and those of the paper
            band = [clopper_pearson(round(value * n), n) for value in values]
            axes.fill_between(x, [b.low for b in band], [b.high for b in band], color="#9db8d8", linewidth=0)
            axes.plot(x, values, color="#1f4e8c", marker=".", linewidth=1.2)
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
        figure.supylabel("accuracy", fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    return text.getvalue()
