"""The findings of a run in a few plain sentences, for the command line and for programs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from underfire.audit.blank_maps import BlankMaps, say_blank
from underfire.audit.comparison import PAIRS, Difference, leading
from underfire.audit.map_shifts import PLAUSIBLE_IOU, MapShift
from underfire.audit.reading import RobustAccuracy
from underfire.audit.sizes import percent, threat
from underfire.audit.standing import Bound, Standing, worst_accuracy
from underfire.records import Check, Interval


def verdict(
    standing: Standing,
    clean: Interval | None,
    robust: Sequence[RobustAccuracy],
    shifts: Sequence[MapShift],
    gaps: Sequence[Difference],
    asked: Sequence[Check],
    *,
    blank: Sequence[BlankMaps] = (),
    answered: bool = False,
) -> str:
    """Return the findings in a few plain sentences; their limits come first."""
    sentences = [f"{standing.headline}."] if standing.headline else []
    if standing.bound and standing.headline:
        sentences.append(holds(standing.bound))
    if standing.level != "firm":
        sentences += standing.reasons
    sentences += say_blank(blank)
    if standing.level == "nothing":
        return " ".join(sentences)
    worst = worst_accuracy(robust)
    if clean and worst:
        left = percent(worst.robust.value, 1)
        change = f"Accuracy falls from {percent(clean.value, 1)} to {left}"
        if answered:
            change = f"The images have no labels; the model keeps its own answer on {left} of them"
        low, high = percent(worst.robust.low, 1), percent(worst.robust.high, 1)
        spread = f"95\u00a0% interval {low} to {high}, n = {worst.robust.n}"
        place = threat(worst.norm, worst.eps)
        bound = "; this is an upper bound" if standing.level == "blind" else ""
        sentences.append(f"{change} under all attacks of {place} together ({spread}){bound}.")
    ranked = leading(gaps)
    strongest = max((m for m in shifts if m.forges), key=lambda m: m.plausible.value, default=None)
    if ranked:
        sentences.append(_forgery(ranked[0]))
        if len(ranked) > 1:
            sentences.append(
                f"Forged maps: {sum(gap.forged for gap in ranked)} of the {len(ranked)} that were attacked."
            )
    elif strongest:
        event = f"{strongest.label} changes the class and the {strongest.interpreter} map stays plausible"
        event += f" (IoU at least {PLAUSIBLE_IOU})"
        reason = "no plain attack of the same norm and size fools the same images, so there is nothing to compare with"
        sentences.append(
            f"In {percent(strongest.plausible.value, 1)} of {strongest.plausible.n} images {event}; {reason}."
        )
    if asked and all(check.passed for check in asked) and standing.level != "open":
        sentences.append(f"All {len(asked)} masking checks pass: there is no sign that the attacks were too weak.")
    return " ".join(sentences)


def holds(bound: Bound) -> str:
    r"""Return a sentence on the best success of an attack without a gradient, which holds in any case.

    >>> holds(Bound("Square", "linf", 8 / 255, Interval(0.5, 0.4, 0.6, 100), 0.45))
    'What holds: Square, which uses no gradient, fools 50.0\xa0% of 100 images at L∞ eps 8/255, so the accuracy under attack is at most 45.0\xa0%.'
    """  # noqa: E501
    fooled = f"fools {percent(bound.success.value, 1)} of {bound.success.n} images at {threat(bound.norm, bound.eps)}"
    return (
        f"What holds: {bound.attack}, which uses no gradient, {fooled}, so the accuracy under attack is at most "
        f"{percent(bound.left, 1)}."
    )


def _forgery(gap: Difference) -> str:
    """Return a sentence on the gain of an attack on a map over the plain attack, with the rates of plausible maps."""
    gain, place = f"mean IoU {gap.ious[0]:.2f} against {gap.ious[1]:.2f}", threat(gap.norm, gap.eps)
    aimed, plain = (percent(rate.value, 1) for rate in gap.plausible)
    rates = f"{aimed} and {plain} of the maps stay plausible (IoU at least {PLAUSIBLE_IOU})"
    if gap.iou.n < PAIRS:
        both = f"{gap.label} and {gap.baseline} fool {gap.iou.n} of the same images at {place}"
        return f"{both}, too few to compare the {gap.interpreter} maps: {gain}; {rates}."
    if not np.isnan(gap.iou.low):
        gain += (
            f", paired difference {gap.iou.value:+.2f} (95\u00a0% interval {gap.iou.low:+.2f} to {gap.iou.high:+.2f})"
        )
    where = f"the {gap.interpreter} map than {gap.baseline} at the same {place}"
    kept = f"keeps more of {where}" if gap.forged else f"does not keep significantly more of {where}"
    return f"{gap.label} {kept}, over the {gap.iou.n} images that both fool: {gain}; {rates}."
