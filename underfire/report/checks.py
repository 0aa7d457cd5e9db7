"""The masking checks on the page: what each of them compares, its number with a unit and a direction, its meaning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from underfire.records import Check
from underfire.report import words

_Unit = Literal["share", "points"]
_SIGN = "a lead above the limit is more than chance"
_ABOUT: dict[str, tuple[str, _Unit, str]] = {
    "gradients": (
        "Images whose margin has no gradient",
        "share",
        "An attack that follows the gradient cannot move on these images.",
    ),
    "saturation": (
        "Images whose cross-entropy has no gradient",
        "share",
        "An attack on the cross-entropy has no direction on these images.",
    ),
    "more_steps": (
        "Lead of fewer steps over more steps",
        "points",
        f"More steps must fool as many images; {_SIGN}.",
    ),
    "larger_eps": (
        "Lead of a smaller eps over a larger one",
        "points",
        f"A larger eps must fool as many images; {_SIGN}.",
    ),
    "unbounded_eps": (
        "Images fooled without a bound",
        "share",
        "An attack that may change an image at will must fool all of them.",
    ),
    "beats_noise": (
        "Lead of random noise over the attack",
        "points",
        f"The attack must fool as many images as random noise; {_SIGN}.",
    ),
    "beats_black_box": (
        "Lead of NES, which uses no gradient, over the attack",
        "points",
        f"The attack must fool as many images as NES; {_SIGN}.",
    ),
    "restarts": (
        "Gain of several restarts over one start",
        "points",
        "A large gain means that one start is not enough.",
    ),
}
_AT_LEAST = {"unbounded_eps"}  # all others have a highest value


@dataclass(frozen=True)
class Row:
    """A check as a row of the page.

    Attributes:
        check: the check with its observation.
        quantity: what is measured.
        value: the number with its unit.
        limit: the direction and the limit with its unit, such as `at most 5.0 %`.
        meaning: why the number matters.
    """

    check: Check
    quantity: str
    value: str
    limit: str
    meaning: str


def rows(found: Iterable[Check]) -> list[Row]:
    """Return the checks as rows; a check that is not known here has its plain numbers."""
    return [_row(check) for check in found]


def _row(check: Check) -> Row:
    if check.name not in _ABOUT:
        return Row(check, words.plain(check.name), words.short(check.value), words.short(check.limit), "")
    quantity, unit, meaning = _ABOUT[check.name]
    direction = "at least" if check.name in _AT_LEAST else "at most"
    value, limit = _number(check.value, unit, signed=True), _number(check.limit, unit)
    return Row(check, quantity, value, f"{direction} {limit}", meaning)


def _number(value: float, unit: _Unit, *, signed: bool = False) -> str:
    """Return a share in per cent, or a difference of shares in percentage points."""
    if unit == "share" or math.isnan(value):
        return words.percent(value)
    return f"{100 * value:{'+' if signed else ''}.1f}\u00a0points".replace("-", "−")
