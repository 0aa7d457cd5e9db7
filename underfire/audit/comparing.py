"""Compare two runs: which figures changed, with paired tests where both runs have the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from underfire.audit.gaps import curves, gap_difference
from underfire.audit.reading import SAMPLES, Source
from underfire.audit.sizes import size, threat
from underfire.measures.gap import gap_interval
from underfire.measures.statistics import bootstrap_mean, paired_difference, rate
from underfire.records import Interval

SIGNIFICANCE = 0.05
"""The level of the tests."""

Key = tuple[Any, ...]
Values = dict[str, float]


@dataclass(frozen=True)
class Change:
    """One figure in two runs.

    Attributes:
        figure: the name of the figure, such as `"robust accuracy, PGD at linf eps 0.031"`.
        before: the figure in the first run; None if the run does not have it.
        after: the figure in the second run; None if the run does not have it.
        difference: the second minus the first, with its interval; None if a run does not have the figure. Over the same
            images it is the mean of the paired differences, or for a gap a paired bootstrap, and otherwise its interval
            follows from the two intervals.
        p: the p-value of the exact sign test over the images in which the runs differ (McNemar's test for a rate); None
            if the images are not the same, and for a gap, which is a ratio of sums and no mean.
    """

    figure: str
    before: Interval | None
    after: Interval | None
    difference: Interval | None
    p: float | None

    @property
    def significant(self) -> bool:
        """Return whether the figure changed significantly, or only one of the runs has it."""
        if self.difference is None:
            return True
        if self.p is not None:
            return self.p < SIGNIFICANCE
        return self.difference.low > 0 or self.difference.high < 0


def compare(first: Source, second: Source) -> list[Change]:
    """Return every figure of two runs, each with its change.

    They are accuracies, success rates, means of the measures, and prediction-interpretation gaps.
    """
    labels = [{row["id"]: row["y"] for row in run.sql("SELECT id, y FROM clean")} for run in (first, second)]
    same = labels[0] == labels[1]
    figures = [dict(_figures(run)) for run in (first, second)]
    names = list(dict.fromkeys([*figures[0], *figures[1]]))
    changes = (_change(_name(key), key[0] != "mean", *(f.get(key) for f in figures), same=same) for key in names)
    gaps = _gap_changes(first, second, same=same)
    return [change for change in (*changes, *gaps) if change.before or change.after]


def _gap_changes(first: Source, second: Source, *, same: bool) -> Iterator[Change]:
    """Yield the change of every prediction-interpretation gap; gaps over other sizes are other figures."""
    runs = [{(c.interpreter, c.norm, c.sizes): c for c in curves(run)} for run in (first, second)]
    for interpreter, norm, sizes in dict.fromkeys([*runs[0], *runs[1]]):
        pair = [run.get((interpreter, norm, sizes)) for run in runs]
        a, b = (None if c is None else gap_interval(*c.areas()) for c in pair)
        a, b = (None if i is None or not i.n else i for i in (a, b))
        until = f" to {size(norm, sizes[-1])}" if len(sizes) > 1 else ""
        name = f"interpretation gap of {interpreter} at {threat(norm, sizes[0])}{until}"
        difference = _apart(a, b)
        if same and difference is not None:
            difference = gap_difference(pair[1], pair[0])
        yield Change(name, a, b, difference, None)


def _apart(a: Interval | None, b: Interval | None) -> Interval | None:
    """Return `b - a` with the interval that follows from the two intervals; None if one is missing."""
    if a is None or b is None:
        return None
    return Interval(b.value - a.value, b.low - a.high, b.high - a.low, min(a.n, b.n))


def _change(name: str, is_rate: bool, before: Values | None, after: Values | None, *, same: bool) -> Change:
    """Return the change of one figure; `same` says whether both runs have the same images with the same labels."""
    intervals = [None if values is None else _interval(values, is_rate) for values in (before, after)]
    a, b = intervals
    if before is None or after is None or a is None or b is None:
        return Change(name, a, b, None, None)
    if same and before.keys() == after.keys():
        pairs = np.array([[before[i], after[i]] for i in sorted(before)], dtype=float)
        pairs = pairs[~np.isnan(pairs).any(1)]
        if len(pairs):
            return Change(
                name, a, b, paired_difference(pairs[:, 1], pairs[:, 0]), _sign_test(pairs[:, 1] - pairs[:, 0])
            )
    return Change(name, a, b, _apart(a, b), None)


def _interval(values: Mapping[str, float], is_rate: bool) -> Interval | None:
    """Return the rate or the mean of values that are not nan; None if there are none."""
    known = np.array([value for value in values.values() if not np.isnan(value)], dtype=float)
    if not len(known):
        return None
    return rate(known) if is_rate else bootstrap_mean(known)


def _sign_test(differences: Any) -> float:
    """Return the two-sided p-value of the exact sign test; 1 if all differences are 0."""
    from scipy.stats import binomtest

    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def _figures(run: Source) -> Iterator[tuple[Key, Values]]:
    """Yield every figure by its key, as one value for each image."""
    yield ("clean",), {row["id"]: float(row["v"]) for row in run.sql("SELECT id, (pred = y) AS v FROM clean")}
    tables = {
        "robust": f"SELECT label, norm, eps, id, held AS v FROM ({SAMPLES})",
        "worst": f"SELECT norm, eps, id, bool_and(held) AS v FROM ({SAMPLES}) GROUP BY norm, eps, id",
        "success": f"SELECT label, norm, eps, id, fooled AS v FROM ({SAMPLES}) WHERE was_right",
        "mean": "SELECT measure, interpreter, label, norm, eps, id, avg(value) AS v FROM measures GROUP BY ALL",
    }
    for kind, query in tables.items():
        found: dict[Key, Values] = {}
        for row in run.sql(f"SELECT * FROM ({query}) ORDER BY ALL"):
            value, name = row.pop("v"), row.pop("id")
            found.setdefault((kind, *row.values()), {})[name] = float("nan") if value is None else float(value)
        yield from found.items()


def _name(key: Key) -> str:
    """Return the name of a figure for a reader, such as `"success, PGD at linf eps 0.031"`."""
    kind, *rest = key
    if kind == "clean":
        return "clean accuracy"
    *words, norm, eps = rest
    place = threat(norm, eps)
    if kind == "worst":
        return f"accuracy under all attacks at {place}"
    if kind == "mean":
        measure, interpreter, label = words
        return f"{measure}{f' of {interpreter}' if interpreter else ''}, {label} at {place}"
    return f"{'robust accuracy' if kind == 'robust' else 'success'}, {words[0]} at {place}"
