"""Render the results of a study as one self-contained HTML page with tables and a chart."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from underfire.records import Interval
from underfire.study import noticing
from underfire.study.checks import FASTEST, FEWEST_ANNOTATORS, SLOWEST, answers_needed
from underfire.study.noticing import NoticingResults
from underfire.study.results import CORRECTION, StudyResults, headline

_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 260, 56, 16  # of the chart, in its own pixels
_X = {"without": 0.24, "with": 0.76}  # where each condition stands, as a share of the width


def render(found: StudyResults | NoticingResults) -> str:
    """Return the page as HTML text."""
    if isinstance(found, NoticingResults):
        verdict, needed = noticing.headline(found), answers_needed(2)
        return _fill("noticing.html", found, verdict=verdict, needed=needed, names=noticing.NAMES)
    needed = answers_needed(len(found.about["classes"]))
    verdict, chart = headline(found), _chart(found)
    return _fill("results.html", found, verdict=verdict, needed=needed, chart=chart, correction=CORRECTION)


@cache
def _engine() -> Environment:
    """Return the template engine with the filters of the page; it compiles each template once."""
    engine = Environment(
        loader=PackageLoader("underfire.study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    engine.filters.update(span=_span, number=_number, percent=_percent)
    return engine


def _fill(template: str, found: StudyResults | NoticingResults, **values: Any) -> str:
    """Return a template of results as HTML text."""
    templates = files("underfire.study").joinpath("templates")
    style = "".join(templates.joinpath(name).read_text(encoding="utf-8") for name in ("study.css", "results.css"))
    limits = {"fastest": FASTEST, "slowest": SLOWEST, "annotators": FEWEST_ANNOTATORS}
    return _engine().get_template(template).render(found=found, **limits, style=Markup(style), **values)


def _chart(found: StudyResults) -> dict[str, Any] | None:
    """Return the coordinates of the chart: each annotator's share without and with explanations, and the pooled rate.

    There is no chart while the difference is withheld.
    """
    pairs = [(p.name, p.share["without"], p.share["with"]) for p in found.people if p.share]
    pairs = [pair for pair in pairs if all(math.isfinite(v) for v in pair[1:])]
    pooled = {name: part.rate for name, part in found.pooled.items()}
    if found.rate.why or not all(math.isfinite(i.value) for i in pooled.values()):
        return None
    values = [v for _, *two in pairs for v in two]
    values += [v for i in pooled.values() for v in (i.value, i.high) if v == v]  # an interval may be nan
    low, high = min(0.0, *values), max(values)
    step = _tick_distance(high - low)
    first, last = math.floor(low / step), math.ceil(high / step)

    def x(name: str) -> float:
        return _LEFT + _X[name] * (_WIDTH - _LEFT)

    def y(value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP) * (last - value / step) / (last - first), 1)

    return {
        "width": _WIDTH,
        "height": _HEIGHT + 40,
        "left": _LEFT,
        "bottom": _HEIGHT,
        "ticks": [(f"{i * step:g}", y(i * step)) for i in range(first, last + 1)],
        "places": [(name, round(x(name), 1)) for name in _X],
        "people": [(name, y(before), y(after)) for name, before, after in pairs],
        "pooled": [
            {"x": round(x(name), 1), "y": y(i.value), "span": (y(i.low), y(i.high)) if i.low == i.low else None}
            for name, i in pooled.items()
        ],
    }


def _tick_distance(span: float) -> float:
    """Return a round distance between ticks, so that about four of them fit."""
    rough = max(span, 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)


def _number(value: float, form: str = ".2f") -> str:
    """Format a number with a true minus sign; nan becomes a dash."""
    return "–" if value != value else f"{value:{form}}".replace("-", "−")


def _span(interval: Interval, form: str = ".2f") -> str:
    """Format the ends of an interval; an undefined interval becomes an empty text."""
    return "" if interval.low != interval.low else f"{interval.low:{form}} to {interval.high:{form}}".replace("-", "−")


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.0f}\u00a0%"
