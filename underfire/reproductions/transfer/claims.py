"""Decide what must hold in a transfer experiment from paired differences, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underfire.measures.statistics import paired_difference
from underfire.records import Interval
from underfire.reproductions.registry import table
from underfire.reproductions.transfer.grid import Fooled


@dataclass(frozen=True)
class Decision:
    """A claim that was decided.

    Attributes:
        claim: the claim in words.
        holds: whether it holds.
        figures: the numbers that decide it.
        sure: whether the 95 % interval decides it, and not the estimate alone.
    """

    claim: str
    holds: bool
    figures: str
    sure: bool

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return ("holds" if self.holds else "does not hold") + ("" if self.sure else ", not significant")


def above(claim: str, higher: Fooled, lower: Fooled) -> Decision:
    """Return whether one attack fools more images than another, by the interval of the paired difference."""
    difference = paired_difference(higher, lower)
    figures = f"{np.mean(higher):.1%} against {np.mean(lower):.1%}, difference {signed(difference)}"
    return Decision(claim, difference.value > 0, figures, difference.low > 0 or difference.high < 0)


def in_order(names: Sequence[str], rows: Mapping[str, Fooled], *, what: str = "") -> list[Decision]:
    """Return whether each attack fools more images than the one before it."""
    pairs = zip(names[1:], names[:-1], strict=True)
    return [above(f"{high} > {low}{what}", rows[high], rows[low]) for high, low in pairs if {high, low} <= rows.keys()]


def signed(difference: Interval) -> str:
    """Return a difference of rates with its interval, in points of per cent."""
    value, low, high = (f"{100 * part:+.1f}" for part in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def as_table(found: Sequence[Decision]) -> str:
    """Return decisions as a Markdown table."""
    return "**What must hold**\n\n" + table(
        ("claim", "verdict", "figures"), [[one.claim, f"**{one.verdict}**", one.figures] for one in found]
    )


def as_results(found: Sequence[Decision]) -> list[dict[str, Any]]:
    """Return decisions as plain values."""
    return [{**asdict(one), "verdict": one.verdict} for one in found]
