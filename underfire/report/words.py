"""Formatting of numbers and names for readers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from underfire.audit.sizes import norm as norm
from underfire.audit.sizes import percent as _percent
from underfire.audit.sizes import size as size
from underfire.audit.sizes import threat as threat
from underfire.audit.sizes import unit as unit
from underfire.records import Interval


def percent(value: float) -> str:
    r"""Format a share in per cent with one decimal.

    >>> percent(0.4213)
    '42.1\xa0%'
    """
    return "unknown" if math.isnan(value) else _percent(value, 1)


def format_interval(i: Interval) -> str:
    r"""Format the interval of a share in per cent.

    >>> format_interval(Interval(0.5, 0.41234, 0.6, 100))
    '41.2–60.0\xa0%'
    """
    return f"{100 * i.low:.1f}–{100 * i.high:.1f}\u00a0%"


def format_range(i: Interval) -> str:
    """Format the interval of a number that is not a share; a mean of one value has no interval."""
    if math.isnan(i.low):
        return "no interval"
    return f"{i.low:.3f}–{i.high:.3f}"


def signed(value: float) -> str:
    """Format a difference with its sign and three decimals."""
    return "unknown" if math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """Return the name of a class, or its number if it has no known name."""
    return labels[index] if labels and 0 <= index < len(labels) else f"class {index}"


def listed(names: Sequence[str]) -> str:
    """Return names as a part of a sentence.

    >>> listed(["FGSM", "PGD", "ADV²"])
    'FGSM, PGD and ADV²'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plain(name: str) -> str:
    """Convert an identifier to words.

    >>> plain("more_steps")
    'More steps'
    """
    text = str(name).replace("_", " ").replace("-", " ")
    return text[:1].upper() + text[1:]


def heading(label: str) -> str:
    """Return the label of a measure as a heading.

    >>> heading("map_iou"), heading("mass_inside"), heading("insertion")
    ('Map IoU', 'Mass inside', 'Insertion')
    """
    known = {"iou": "IoU", "l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞", "ssim": "SSIM", "ap": "AP"}
    text = " ".join(known.get(word, word) for word in str(label).split("_"))
    return text[:1].upper() + text[1:]


def short(value: float | None) -> str:
    """Format a number with at most three digits."""
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def seconds(value: float) -> str:
    """Format a time in seconds, with more decimals the shorter it is."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def unknown(value: float) -> bool:
    """Return whether a number is nan."""
    return math.isnan(value)
