"""Plots of the report, drawn by matplotlib as SVG inside the page, without scripts, fonts or other files.

Each colour in a drawing is a placeholder that is replaced by a variable of `report.css`, which has a light and a dark
value. Attacks differ not only in colour but also in dashes and marker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from io import StringIO
from itertools import count
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from underfire.records import Interval

_MARKERS = "os^DvPXp"
_DASHES = (
    (),
    (3, 1.2),
    (1, 1.2),
    (4, 1.2, 1, 1.2),
    (5, 1.5),
    (2, 2),
    (3, 1, 1, 1, 1, 1),
    (1, 3),
)  # in line widths, short
STYLES = len(_MARKERS)
_BINS = 30  # of a histogram of scores
_LINE_HEIGHT, _ROOM, _LONGEST = 8.5, 12, 17  # of names of curves: the height on the axis, the number, the letters
WORST = -1  # the style of all attacks together: a heavy line in the colour of the text
Curve = tuple[int, Mapping[float, Interval]]  # a style, and the rates in [0, 1] by size
_VARIABLES = (*(f"c{i}" for i in range(STYLES)), "ink", "soft", "line", "card")
_INK, _SOFT, _LINE, _CARD = (f"#c0de{STYLES + i:02d}" for i in range(4))
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "underfire",
    "font.size": 14,  # 11 on a phone, where the page is narrower than a plot
    "ytick.major.size": 0,
    **dict.fromkeys(("axes.spines.left", "axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("text.color", "axes.labelcolor"), _INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), _SOFT),
}


def _inline(figure: Figure, kind: str, about: Markup) -> Markup:
    """Return a figure as an SVG element of the page, without the head and the global style of an SVG file."""
    file, (width, height) = StringIO(), 72 * figure.get_size_inches()
    for artist in figure.findobj():
        artist.set_clip_on(False)  # do not cut off markers at the edge
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = re.sub(r' id="[\w.]*_\d+"', "", "".join(file.getvalue().partition("<g id=")[1:]))  # unused ids
    text = re.sub(r'id="curve-(\d+)"', r'class="series" data-series="\1"', text)
    text = re.sub(r'id="band-(\d+)"', r'class="series band" data-series="\1"', text)
    text = re.sub(r"#c0de(\d\d)", lambda found: f"var(--{_VARIABLES[int(found[1])]})", text)
    return Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" {}>').format(kind, width, height, about) + Markup(text)


def distinct(page: str) -> str:
    """Number the ids in every plot of the page, so that no two plots share an id."""
    number, plots = count(), re.compile(r'<svg class="(?:chart|key|meter)".*?</svg>', re.DOTALL)
    return plots.sub(lambda plot: re.sub(r'(\bid="|href="#)', rf"\g<1>p{next(number)}-", plot[0]), page)


def _figure(width: float, height: float, **options: Any) -> Figure:
    return Figure((width / 72, height / 72), frameon=False, **options)  # 72 units of the drawing are one inch


def _look(style: int) -> dict[str, Any]:
    """Return the options of matplotlib for a line of a style."""
    i, total = style % STYLES, style == WORST
    colour, dashes = (_INK, ()) if total else (f"#c0de{i:02d}", _DASHES[i])
    line = {"color": colour, "linestyle": (0, dashes) if dashes else "-", "linewidth": 3 if total else 2}
    marker = {"marker": "o" if total else _MARKERS[i], "markersize": 7, "markeredgewidth": 1.8}
    return {**line, **marker, "markerfacecolor": colour if total else _CARD}


@cache
@rc_context(_SETTINGS)
def key(style: int, lone: bool = False) -> Markup:
    """Draw a short line of a style with its marker, as the key of a curve in a table; a lone point has a whisker."""
    figure = _figure(44, 16)
    x, y = ([0.5] * 3, [0, 0.5, 1]) if lone else ([1 / 44, 0.5, 43 / 44], [0.5] * 3)
    look = {**_look(style), **({"linestyle": "-"} if lone else {})}
    figure.add_artist(Line2D(x, y, markevery=[1], **look))
    return _inline(figure, "key", Markup('aria-hidden="true"'))


@lru_cache(maxsize=1024)
@rc_context(_SETTINGS)
def meter(value: float, low: float, high: float, mark: float = math.nan, *, length: int = 100) -> Markup:
    """Draw a rate on a scale from 0 to 1, `length` units long, with its interval and an upright line at `mark`."""
    if not math.isfinite(value):
        return Markup()
    figure = _figure(length + 8, 12)

    def line(places: Sequence[float], heights: Sequence[float], **look: Any) -> None:
        # in shares of the figure, and without axes, which take most of the time
        shares = [(4 + place * length) / (length + 8) for place in places]
        figure.add_artist(Line2D(shares, [height / 12 for height in heights], **look))

    line([0, 1], [6, 6], color=_LINE, linewidth=3, solid_capstyle="round")
    line([mark, mark], [1, 11], color=_SOFT, linewidth=1.5)
    line([low, high], [6, 6], color=_INK, alpha=0.5, linewidth=3, solid_capstyle="butt")
    line([value], [6], color=_INK, linestyle="", marker="o", markersize=7)
    return _inline(figure, "meter", Markup('aria-hidden="true"'))


@rc_context(_SETTINGS)
def curves(
    series: Sequence[Curve],
    names: tuple[str, str],
    tick: Callable[[float], str],
    alt: str,
    labels: Sequence[str] = (),
) -> Markup:
    """Draw rates in per cent over the size, each with its confidence band, or with a whisker if it has one point.

    Of several curves, only the band of all attacks together is visible; the page shows another one with its curve.

    Args:
        series: the curves.
        names: the names of the two axes.
        tick: returns the label of a size on the axis.
        alt: the description of the plot in words.
        labels: the names of the curves, which stand at their ends; none without them.
    """
    figure = _figure(420, 290, layout="constrained")
    axes = figure.add_subplot(xlabel=names[0], ylim=(-4, 104), yticks=range(0, 101, 25), facecolor="none")
    axes.grid(axis="y", color=_LINE, zorder=0)
    axes.set_title(names[1], loc="left", size="medium", pad=10)
    lone = [i for i, (_, curve) in enumerate(series) if len(curve) == 1]
    apart = min(11, 240 / max(1, len(lone)))  # all of them stay within the axes
    for i, (style, curve) in enumerate(series):
        look, sizes = _look(style), sorted(curve)
        at, low, high = ([100 * getattr(curve[x], part) for x in sizes] for part in ("value", "low", "high"))
        aside = apart * (lone.index(i) - (len(lone) - 1) / 2) if i in lone else 0  # lone points stand side by side
        place = axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
        band = "curve" if style == WORST or len(series) == 1 else "band"
        axes.fill_between(sizes, low, high, gid=f"{band}-{i}", color=look["color"], alpha=0.12, linewidth=0)
        if i in lone:
            axes.plot(2 * sizes, low + high, gid=f"curve-{i}", transform=place, color=look["color"])
        axes.plot(sizes, at, gid=f"curve-{i}", transform=place, zorder=2 if style == WORST else 3 + (i in lone), **look)
    _name_ends(axes, series, labels)
    places, labelled = sorted({0.0}.union(*(curve for _, curve in series))), [0.0]
    for x in reversed(places):  # a size too close to another one has a tick but no label
        labelled += [x] if all(abs(x - other) > 0.15 * places[-1] for other in labelled) else []
    axes.set_xticks(labelled, [tick(x) for x in labelled])
    axes.set_xticks(places, minor=True)
    return _inline(figure, "chart", Markup('role="img" aria-label="{}"').format(alt))


def _name_ends(axes: Any, series: Sequence[Curve], labels: Sequence[str]) -> None:
    """Write the names of the curves right of the axes, at the height of their ends, but not over each other.

    If there is no room for all, the curves that end lowest are named.
    """
    ends = [100 * curve[max(curve)].value for _, curve in series][: len(labels)]
    named = sorted(range(len(ends)), key=lambda i: (series[i][0] != WORST, ends[i]))[:_ROOM]
    named.sort(key=lambda i: (ends[i], series[i][0] != WORST))
    heights: list[float] = []
    for i in named:  # upwards, each a line above the one before
        heights.append(max(ends[i], heights[-1] + _LINE_HEIGHT if heights else 0.0))
    for k in reversed(range(len(heights))):  # downwards, where the last ones are above the axes
        heights[k] = min(heights[k], heights[k + 1] - _LINE_HEIGHT if k + 1 < len(heights) else 100.0)
    for i, height in zip(named, heights, strict=True):
        text = labels[i] if len(labels[i]) <= _LONGEST else labels[i][: _LONGEST - 1].rstrip() + "…"
        place = axes.get_yaxis_transform()
        axes.text(
            1.03, height, text, transform=place, va="center", color=_look(series[i][0])["color"], gid=f"curve-{i}"
        )


@rc_context(_SETTINGS)
def roc(series: Sequence[tuple[int, ArrayLike, ArrayLike]], alt: str) -> Markup:
    """Draw ROC curves in per cent, with the line of chance.

    Args:
        series: for each curve its style, the shares of clean inputs that are flagged, and those of attacked ones.
        alt: the description of the plot in words.
    """
    figure = _figure(420, 330, layout="constrained")
    ticks = range(0, 101, 25)
    axes = figure.add_subplot(
        xlabel="clean images flagged, %", xlim=(-3, 103), ylim=(-4, 104), xticks=ticks, yticks=ticks, facecolor="none"
    )
    axes.grid(axis="y", color=_LINE, zorder=0)
    axes.set_title("successful attacks flagged, %", loc="left", size="medium", pad=10)
    axes.plot([0, 100], [0, 100], color=_SOFT, linewidth=1.5, linestyle=(0, (2, 3)))
    for i, (style, fpr, tpr) in enumerate(series):
        look = {name: value for name, value in _look(style).items() if not name.startswith("marker")}
        axes.plot(100 * np.asarray(fpr), 100 * np.asarray(tpr), gid=f"curve-{i}", zorder=3, **look)
    return _inline(figure, "chart", Markup('role="img" aria-label="{}"').format(alt))


@rc_context(_SETTINGS)
def histograms(clean: ArrayLike, series: Sequence[tuple[int, ArrayLike]], threshold: float, alt: str) -> Markup:
    """Draw the distribution of scores: of clean inputs as an area, of attacked ones as steps, and the threshold.

    Args:
        clean: scores of clean inputs.
        series: for each step line its style and the scores of attacked inputs.
        threshold: where an upright line stands.
        alt: the description of the plot in words.
    """
    figure = _figure(420, 330, layout="constrained")
    axes = figure.add_subplot(xlabel="score (higher is more suspicious)", facecolor="none")
    axes.set_title("images, %", loc="left", size="medium", pad=10)
    axes.grid(axis="y", color=_LINE, zorder=0)
    # scores far outside are counted in the first and the last bin
    every = np.concatenate([np.asarray(scores, float) for scores in (clean, *(part for _, part in series))])
    low, high = np.quantile(every, [0.01, 0.99])
    low, high = min(low, threshold), max(high, threshold)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    parts = [
        np.clip(np.asarray(scores, float), edges[0], edges[-1]) for scores in (clean, *(part for _, part in series))
    ]
    shares = [100 * np.histogram(part, edges)[0] / max(len(part), 1) for part in parts]
    axes.stairs(shares[0], edges, fill=True, color=_SOFT, alpha=0.35)
    for i, ((style, _), share) in enumerate(zip(series, shares[1:], strict=True)):
        look = {name: value for name, value in _look(style).items() if name in ("color", "linestyle", "linewidth")}
        axes.stairs(share, edges, gid=f"curve-{i}", baseline=None, zorder=3, **look)
    axes.axvline(threshold, color=_INK, linewidth=1.5, linestyle=(0, (4, 2)))
    return _inline(figure, "chart", Markup('role="img" aria-label="{}"').format(alt))
