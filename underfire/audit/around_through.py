"""Compare attacks *through* a defence with attacks *around* it, which shows a defence that only hides the gradient.

An attack through the defence knows it, and follows its BPDA rule and several of its draws; an attack around it was
crafted on a model without it. A defence hides the gradient if the second is stronger (Athalye, Carlini and Wagner,
Obfuscated Gradients Give a False Sense of Security, ICML 2018), or if the first needs BPDA.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from underfire.audit.reading import mean
from underfire.audit.sizes import percent, threat
from underfire.measures.statistics import paired_difference, rate
from underfire.records import Interval

AROUND = ("around", "transfer")
"""The ways to a victim on which the attacker did not use the victim itself; only they count in means."""


@dataclass(frozen=True)
class Found:
    """One attack at one size on one victim: the share of draws fooled of every image that counts, `[n]`.

    All entries have the same images; the share of an image that was not attacked yet is nan.
    """

    victim: str
    way: str
    label: str
    norm: str
    eps: float
    fooled: Any


@dataclass(frozen=True)
class Comparison:
    """The strongest attacks on one defended victim in each way.

    Attributes:
        victim: the victim.
        around: success of the strongest attack around the defence; None if there is none.
        through: success of the strongest attack through it; None if none could be run.
        without_bpda: success without BPDA of the attack that gains most by it, 0 where it finds no gradient; None if no
            attack was planned without BPDA.
        difference: through less around, paired over the images; None without one of them.
        hides: whether the defence hides the gradient: around it is significantly stronger than through it, or BPDA is.
        left: share of the images that withstand every attack in every way, with its interval.
        sentence: the comparison in one plain sentence.
    """

    victim: str
    around: Interval | None
    through: Interval | None
    without_bpda: Interval | None
    difference: Interval | None
    hides: bool
    left: Interval
    sentence: str


def success(fooled: Any) -> Interval:
    """Return the mean over images of the share of draws that are fooled, `[n]` in [0, 1], with its interval.

    Images with nan are left out. The interval is exact if the share of every image is 0 or 1, and otherwise a bootstrap
    over the images.
    """
    values = np.asarray(fooled, dtype=float)
    values = values[~np.isnan(values)]
    return rate(values) if np.isin(values, (0.0, 1.0)).all() else mean(values)


def comparisons(found: Sequence[Found], blind: Collection[tuple[str, str]]) -> list[Comparison]:
    """Return the comparison for every victim that has defences, in the order of `found`.

    Args:
        found: the attacks; the largest size of each counts.
        blind: the pairs of a victim and the label of an attack that found no gradient without BPDA.
    """
    largest = {(f.label, f.norm): max(g.eps for g in found if (g.label, g.norm) == (f.label, f.norm)) for f in found}
    found = [entry for entry in found if entry.eps == largest[entry.label, entry.norm]]
    names = dict.fromkeys(f.victim for f in found if f.way in ("around", "through"))
    return [_compare(name, [f for f in found if f.victim == name], blind) for name in names]


def _compare(victim: str, found: Sequence[Found], blind: Collection[tuple[str, str]]) -> Comparison:
    around, through = _strongest(found, AROUND), _strongest(found, ("through",))
    difference = paired_difference(through.fooled, around.fooled) if around and through else None
    weaker = difference is not None and difference.high < 0
    with_rule, bare = _gained(victim, found, blind)
    needs = bool(with_rule and bare and paired_difference(with_rule.fooled, bare.fooled).low > 0)
    most = np.max([entry.fooled for entry in found], axis=0)
    left = rate(most[~np.isnan(most)] == 0)
    return Comparison(
        victim=victim,
        around=_success(around),
        through=_success(through),
        without_bpda=_success(bare),
        difference=difference,
        hides=weaker or needs,
        left=left,
        sentence=_sentence(victim, around, through, weaker=weaker, needs=needs, bare=bare, left=left),
    )


def _gained(
    victim: str, found: Sequence[Found], blind: Collection[tuple[str, str]]
) -> tuple[Found | None, Found | None]:
    """Return the attack through the defence that gains most by BPDA, and the same attack without it; None if none."""
    pairs = []
    for with_rule in (f for f in found if f.way == "through"):
        bare = next((f for f in found if (f.way, f.label) == ("through without BPDA", with_rule.label)), None)
        if (victim, with_rule.label) in blind:
            bare = replace(with_rule, way="no gradient", fooled=with_rule.fooled * 0.0)
        pairs += [(with_rule, bare)] if bare is not None else []
    return max(pairs, key=lambda pair: _mean(pair[0]) - _mean(pair[1]), default=(None, None))


def _strongest(found: Sequence[Found], ways: Sequence[str]) -> Found | None:
    return max((f for f in found if f.way in ways), key=_mean, default=None)


def _mean(entry: Found) -> float:
    return float(np.nanmean(entry.fooled))


def _success(entry: Found | None) -> Interval | None:
    return None if entry is None else success(entry.fooled)


def _share(entry: Found) -> str:
    return percent(_mean(entry))


def _sentence(
    victim: str,
    around: Found | None,
    through: Found | None,
    *,
    weaker: bool,
    needs: bool,
    bare: Found | None,
    left: Interval,
) -> str:
    """Return what the comparison means, in one sentence."""
    stays = f"{percent(left.value)} of the images withstand every attack" if left.n else "no image has met every attack"
    if through is None:
        return f"{victim} was attacked around its defence only; {stays}."
    at = threat(through.norm, through.eps)
    if around is None:
        return f"{victim} was attacked through its defence only ({through.label}, {_share(through)} at {at}); {stays}."
    both = f"{_share(through)} through it ({through.label}, {at}) and {_share(around)} around it ({around.label})"
    if weaker:
        said = "hides its gradient: attacks around the defence fool more images than attacks through it:"
    elif needs and bare is not None:
        plain = "has no gradient" if bare.way == "no gradient" else f"fools {_share(bare)}"
        said = f"only hides its gradient: an attack through it without BPDA {plain}, with BPDA attacks fool"
    else:
        said = "shows no sign of a hidden gradient: attacks fool"
    return f"{victim} {said} {both}; {stays}."
