"""Draw matrices of rates as heat maps in one SVG picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence


def heatmaps(matrices: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """Return an SVG of the matrices side by side, with the rate of each cell in per cent; the SVG is deterministic."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width = 0.55 * len(columns) + 0.6
    with matplotlib.rc_context({"svg.hashsalt": "underfire", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((width * len(matrices), 0.5 * len(rows) + 1), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (title, rates) in zip(
            figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True
        ):
            # the cells
            axes.pcolormesh(rates, cmap="Greys", vmin=0, vmax=1, edgecolors="white", linewidth=1)
            axes.invert_yaxis()
            # title, names of rows and columns
            axes.set_title(title)
            axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
            axes.set_yticks([i + 0.5 for i in range(len(rows))], rows)
            axes.tick_params(length=0)
            # the rate in each cell
            for i, row in enumerate(rates):
                for j, rate in enumerate(row):
                    colour = "white" if rate > 0.55 else "black"
                    axes.text(j + 0.5, i + 0.5, f"{100 * rate:.0f}", ha="center", va="center", color=colour)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    return text.getvalue()
