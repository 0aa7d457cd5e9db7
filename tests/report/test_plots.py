"""Plots: where matplotlib puts curves and meters, and what of its file may stand inside a page."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

from underfire.records import Interval
from underfire.report import plots


def curve(*values: float) -> dict[float, Interval]:
    return {float(i): Interval(v, v - 0.1, v + 0.1, 100) for i, v in enumerate(values)}


def draw(*series: plots.Curve) -> str:
    return str(plots.curves(series, ("size <1>", "rate"), str, "a < b"))


def part(drawn: str, number: int, which: int) -> list[tuple[float, float]]:
    """The corners of a part of a curve: 0 is its band, the last one its line."""
    found = re.findall(
        rf'<g class="series(?: band)?" data-series="{number}">\s*(?:<defs>\s*)?<path (?:id="\w+" )?d="([^"]*)"', drawn
    )
    corners = [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", found[which])]
    return [(x, y + 290 if y < 0 else y) for x, y in corners]  # matplotlib counts a band from the floor of the drawing


def test_rates_are_drawn_to_scale() -> None:
    (left, top), (middle, half), (right, floor) = part(draw((0, curve(1.0, 0.5, 0.0))), 0, -1)
    assert abs(middle - (left + right) / 2) < 0.01 and left < right
    assert abs(half - (top + floor) / 2) < 0.01 and top < floor


def test_a_band_reaches_from_low_to_high() -> None:
    drawn = draw((0, curve(1.0, 0.5, 0.0)))
    (_, top), _, (_, floor) = part(drawn, 0, -1)
    heights = sorted({round(y, 2) for x, y in part(drawn, 0, 0)})
    assert heights[0] < top and heights[-1] > floor
    assert abs((heights[-1] - heights[0]) / (floor - top) - 1.2) < 0.01  # from 1.1 to -0.1


def test_lone_points_have_whiskers_and_stand_side_by_side() -> None:
    line, one, two = (
        (0, curve(1.0, 0.5, 0.0)),
        (1, {2.0: Interval(0.5, 0.25, 0.75, 9)}),
        (2, {2.0: Interval(0, 0, 1, 9)}),
    )
    drawn = draw(line, one, two)
    (_, top), _, (right, floor) = part(drawn, 0, -1)
    (x, low), (_, high) = part(drawn, 1, 1)
    assert abs((low - high) / (floor - top) - 0.5) < 0.01
    (other, _), _ = part(drawn, 2, 1)
    assert abs(other - x - 11) < 0.01 and x < right < other


def test_curves_are_named_at_their_ends_and_only_one_band_is_seen() -> None:
    names = ["one", "two", "three", "all together"]
    series = [(i, curve(1.0, 0.0)) for i in (0, 1, 2)] + [(plots.WORST, curve(1.0, 0.0))]
    drawn = str(plots.curves(series, ("size", "rate"), str, "a", names))
    assert all(f">{name}</text>" in drawn for name in names)
    assert re.findall(r'class="series band" data-series="(\d)"', drawn) == ["0", "1", "2"]
    assert 'class="series band"' not in draw((0, curve(1.0, 0.0)))  # a curve alone has its band
    many = [(i % plots.STYLES, curve(1.0, 0.0)) for i in range(20)]
    drawn = str(plots.curves(many, ("size", "rate"), str, "a", [f"a long name of attack {i}" for i in range(20)]))
    assert drawn.count("a long name of a…</text>") == 12  # no more than there is room for


def test_only_the_drawing_is_left_of_the_file() -> None:
    drawn = draw((0, curve(0.5, 0.2)), (plots.WORST, curve(0.5, 0.2)))
    assert drawn.startswith('<svg class="chart" viewBox="0 0 420 290" role="img" aria-label="a &lt; b">')
    assert not re.search(r"<\?xml|DOCTYPE|metadata|<style|https?:|#c0de|url\(|curve-\d", drawn)
    assert "size &lt;1&gt;</text>" in drawn  # text stays text
    ElementTree.fromstring(drawn.replace("xlink:", ""))


def test_drawings_are_the_same_every_time_and_share_no_id() -> None:
    one = draw((0, curve(0.5, 0.2)))
    assert one == draw((0, curve(0.5, 0.2)))
    page = plots.distinct(f'<p id="top"></p>{one}{one}{plots.key(3)}{plots.key(3)}{plots.meter(0.5, 0.4, 0.6)}')
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert max(Counter(ids).values()) == 1 and "top" in ids
    assert set(re.findall(r'href="#([^"]+)"', page)) == set(ids) - {"top"}


def test_sizes_that_would_overlap_have_no_name() -> None:
    crowd = {x: Interval(0.5, 0.4, 0.6, 9) for x in (0.001, 0.9, 1.0)}
    assert re.findall(r">([\d.]+)</text>", draw((0, crowd)))[:2] == ["0.0", "1.0"]


def test_styles_differ_without_colour() -> None:
    shapes = {re.sub(r"var\(--\w+\)|m\w{10}", "", str(plots.key(style))) for style in range(plots.STYLES)}
    assert len(shapes) == plots.STYLES
    dashes = {str(re.findall(r"stroke-dasharray: ([\d.,]+)", shape)) for shape in shapes}
    assert len(dashes) == plots.STYLES


def straight(drawn: str) -> list[tuple[float, float]]:
    """From where to where each line of a meter goes."""
    return [(float(a), float(b)) for a, b in re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n"', drawn)]


def test_meter_puts_value_interval_and_mark_on_its_scale() -> None:
    drawn = str(plots.meter(0.5, 0.25, 0.75, 0.9))
    assert straight(drawn) == [(4, 104), (94, 94), (29, 79)]
    assert re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', drawn) == [("54", "6")]


def test_meter_of_nothing_is_empty() -> None:
    assert plots.meter(float("nan"), 0.0, 1.0) == ""


def test_meter_without_interval_is_a_point() -> None:
    assert straight(str(plots.meter(0.5, float("nan"), float("nan")))) == [(4, 104)]
