"""Say of each row of the table whether it reaches its target, for targets that can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.timing import Row

REACHED, MISSED = "reached", "**missed**"
_FOR_TWO = re.compile(r"2 cores|two threads|2 free cores")
_NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e-?\d+)?")
_LIMIT = re.compile(r"([≤≥]) (\d[\d.e-]*)\b(?!')")


def verdicts(rows: Sequence[Row], threads: int = 2) -> list[str]:
    """Return for each row `reached`, `**missed**`, or an empty text where the target is no limit.

    The median of a ratio is compared, without its spread. A measurement with one thread cannot miss a target that is
    set for two.
    """
    values = {measurement: value for measurement, value, _ in rows}
    words = {True: REACHED, False: MISSED, None: ""}
    said = [words[_holds(*row, values)] for row in rows]
    for_two = [threads < 2 and _FOR_TWO.search(target) is not None for _, _, target in rows]
    return ["" if one == MISSED and two else one for one, two in zip(said, for_two, strict=True)]


def _holds(measurement: str, value: str, target: str, values: Mapping[str, str]) -> bool | None:
    """Return whether the target of a row is reached; None if it is no limit."""
    if found := _LIMIT.match(target):
        number, limit = _measured(value, target), float(found[2])
        return number <= limit if found[1] == "≤" else number >= limit
    if "adv_lib's" in target:
        return _after(value, "underfire ") >= _after(value, "adv_lib ") - 0.01
    if "best of adv_lib" in target:
        peer = values[measurement.replace("best attack of underfire", "best attack of adv_lib")]
        return _after(value, " ") >= _after(peer, " ") - 0.005
    if target == "no higher":
        return _first(value) <= _first(values[measurement.replace("underfire", "torchattacks")])
    if "foolbox's units" in target:
        peer = values[measurement.replace("underfire", "foolbox")]
        share = 1 / 3 if "a third" in target else 1.0
        smaller = _after(value, "median L2 ") <= _after(peer, "median L2 ")
        return _first(value) <= share * _first(peer) and smaller
    if target == "below Captum's":
        name = "LRP, ε" if "LRP" in measurement else "DeepLIFT"
        captum = f"{name}{',' if 'LRP' in name else ''} of Captum,"
        return _first(value) < _first(values[measurement.replace(f"{name},", captum)])
    if target.startswith("≤ the peers'"):
        attack, _, rest = measurement.partition(", underfire")
        peers = [
            _first(text) for name, text in values.items() if name.startswith(f"{attack}, ") and name.endswith(rest)
        ]
        return _first(value) <= min(number for number in peers if number != _first(value))
    if least := re.match(r"no less than (\d+)% in common", target):
        common = re.search(r"underfire: .*?(\d+)% in common", value)
        return common is not None and int(common[1]) >= int(least[1])
    if target == "0.96, 0 fooled":
        return _first(value) >= 0.96 and "; 0 certified" in value
    return None


def _measured(value: str, target: str) -> float:
    """Return the number of a row that its limit is about."""
    if "fastest peer" in target:
        return _after(value, "; ")
    if "of" in value and "attacks at most" in value:  # of all attacks, those at most the limit
        below, count = re.findall(r"\d+", value)[:2]
        return 0.0 if below == count else float("inf")
    return _after(value, "ours ") if "ours " in value else _first(value)


def _first(value: str) -> float:
    found = _NUMBER.search(value)
    if found is None:
        raise ValueError(f"{value!r} has no number")
    return float(found[0].replace(",", ""))


def _after(value: str, words: str) -> float:
    return _first(value.partition(words)[2])
