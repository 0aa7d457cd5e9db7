"""Compute how often annotators notice attacked inputs: shares, and the sensitivity d' of signal detection.

An annotator who calls every input attacked notices all attacks and tells nothing apart. Therefore d' compares the share
of attacked inputs called attacked with that of clean inputs (Green and Swets, Signal Detection Theory and
Psychophysics, 1966).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from underfire.errors import InputError
from underfire.measures.statistics import clopper_pearson
from underfire.records import Interval
from underfire.study.checks import (
    answers_needed,
    hasty_notes,
    too_few,
    too_few_annotators,
    why_excluded,
    withdrawal_note,
)
from underfire.study.design import CONDITIONS

if TYPE_CHECKING:
    from underfire.study.design import Study
    from underfire.study.store import Annotator, Answer

NAMES = {"clean": "Clean", "pgd": "PGD", "adv2": "ADV²"}
_RESAMPLES = 10_000


@dataclass(frozen=True)
class AnnotatorNoticing:
    """The result of one annotator.

    Attributes:
        name: the pseudonym.
        answered: the number of images with an answer, without practice.
        of: the number of images.
        noticed: the shares called attacked, by condition.
        code: the completion code; empty for an annotator who has not finished.
    """

    name: str
    answered: int
    of: int
    noticed: dict[str, Interval]
    code: str = ""


@dataclass(frozen=True)
class NoticingResults:
    """The results of a study of noticing.

    Attributes:
        about: the model, interpreter, data and eps.
        with_image: whether annotators saw the input beside its map.
        noticed: the share of inputs called attacked, by condition, with exact intervals over answers.
        sensitivity: d' of PGD and of ADV² against clean, with intervals over annotators; nan where withheld.
        difference: d' of PGD minus that of ADV²; nan where withheld.
        why: the reason why d' is withheld; empty where it is not.
        why_difference: the reason why the difference is withheld; empty where it is not.
        iou: the mean intersection over union of the maps and the clean maps, by condition.
        people: the result of every annotator.
        left_out: the number of answers that do not count, by reason.
        notes: caveats, one sentence each.
    """

    about: dict[str, Any]
    with_image: bool
    noticed: dict[str, Interval]
    sensitivity: dict[str, Interval]
    difference: Interval
    why: str
    why_difference: str
    iou: dict[str, float]
    people: tuple[AnnotatorNoticing, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def evaluate(
    study: Study, annotators: Sequence[Annotator], answers: Iterable[Answer], *, withdrawn: int = 0
) -> NoticingResults:
    """Compute the results of a study of noticing; arguments are those of `results.evaluate`.

    Raises:
        InputError: an answer belongs to another study: its input or its answer does not exist.
    """
    given = [a for a in answers if not a.practice]
    if any(a.item >= len(CONDITIONS) * study.shown or a.answer not in study.classes for a in given):
        raise InputError("the answers belong to another study: one has an input or an answer that it does not have")
    excluded = [why_excluded(a) for a in given]
    # the answers "attacked" and all answers, by annotator and condition
    row = {person.number: i for i, person in enumerate(annotators)}
    counts = np.zeros((len(annotators), len(CONDITIONS), 2), dtype=np.int64)
    for a, reason in zip(given, excluded, strict=True):
        if not reason:
            counts[row[a.annotator], a.item % len(CONDITIONS)] += (a.answer, 1)
    answered = Counter(a.annotator for a in given)
    people = tuple(
        AnnotatorNoticing(p.name, answered[p.number], study.shown, _shares(own), p.code)
        for p, own in zip(annotators, counts, strict=True)
    )
    # withhold d' from few answers, and the difference from few annotators
    took_part = counts[counts[:, :, 1].any(1)]
    few = too_few(int(counts.sum(0)[:, 1].min()), len(study.choices))
    few_people = few or too_few_annotators(len(took_part))
    nothing = Interval(math.nan, math.nan, math.nan, len(took_part))
    pgd, adv2, difference = (nothing,) * 3 if few else _sensitivities(took_part)
    items = study.items[: len(CONDITIONS) * study.shown]
    return NoticingResults(
        about={**study.about, "images": study.shown},
        with_image=study.with_image,
        noticed=_shares(counts.sum(0)),
        sensitivity={"pgd": pgd, "adv2": adv2},
        difference=nothing if few_people else difference,
        why=few,
        why_difference=few_people,
        iou={name: float(np.mean([i.iou for i in items if i.condition == name])) for name in CONDITIONS},
        people=people,
        left_out=dict(Counter(reason for reason in excluded if reason)),
        notes=(*_notes(people, withdrawn), *hasty_notes(annotators, given)),
    )


def headline(found: NoticingResults) -> tuple[str, str]:
    """Return the result as a headline, and as a sentence with its numbers."""
    if found.why:
        needed = answers_needed(2)
        counts = [f"{NAMES[name]} {share.n}" for name, share in found.noticed.items()]
        why = f"It takes {needed} answers in each condition; there are: {', '.join(counts)}."
        return "There are not enough answers yet", why
    clean, pgd, adv2 = (f"{100 * share.value:.0f}\u00a0%" for share in found.noticed.values())
    d = {name: _with_interval(value) for name, value in found.sensitivity.items()}
    sentence = (
        f"{'With the input in view' if found.with_image else 'From the map alone'}, people called {pgd} of the PGD "
        f"inputs, {adv2} of the ADV² inputs and {clean} of the clean inputs attacked; d\u2032 against clean inputs is "
        f"{d['pgd']} for PGD and {d['adv2']} for ADV²."
    )
    if found.why_difference:
        why = f"Their difference is not shown: {found.why_difference}."
        return "Whether people notice ADV² as often as PGD is not known yet", f"{sentence} {why}"
    if found.difference.low > 0:
        return "People notice ADV² less often than PGD", sentence
    if found.difference.high < 0:
        return "People notice ADV² more often than PGD", sentence
    return "These answers do not show whether people notice ADV² less often than PGD", sentence


def d_prime(attacked: NDArray[Any], clean: NDArray[Any]) -> NDArray[np.float64]:
    """Return d' = z(hit rate) - z(false-alarm rate); nan where either kind of input has no answer.

    Half an answer is added to each cell (the log-linear correction: Hautus, Behavior Research Methods 1995), so that
    shares of 0 and 1 have a finite z.

    Args:
        attacked: the answers "attacked" and all answers to attacked inputs, `[..., 2]`.
        clean: the same for clean inputs.
    """
    from scipy.special import ndtri

    hits, alarms = (np.asarray(ndtri((c[..., 0] + 0.5) / (c[..., 1] + 1.0))) for c in (attacked, clean))
    known = (attacked[..., 1] > 0) & (clean[..., 1] > 0)
    return np.asarray(np.where(known, hits - alarms, np.nan), dtype=np.float64)


def _sensitivities(counts: NDArray[np.int64]) -> tuple[Interval, Interval, Interval]:
    """Return d' of PGD, d' of ADV², and their difference, from counts `[annotators, conditions, 2]`.

    Answers are pooled over annotators. The intervals are percentiles of the bootstrap that draws whole annotators; they
    are nan for fewer than two.
    """

    def estimate(pooled: NDArray[np.int64]) -> NDArray[np.float64]:
        pgd, adv2 = (d_prime(pooled[..., k, :], pooled[..., 0, :]) for k in (1, 2))
        return np.stack([pgd, adv2, pgd - adv2], -1)

    n = len(counts)
    values = estimate(counts.sum(0))
    ends = np.full((2, 3), np.nan)
    if n > 1 and not np.isnan(values).any():
        times_drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        ends = np.nanquantile(estimate(np.tensordot(times_drawn, counts, 1)), (0.025, 0.975), axis=0)
    pgd, adv2, difference = (Interval(float(v), float(a), float(b), n) for v, a, b in zip(values, *ends, strict=True))
    return pgd, adv2, difference


def _shares(counts: NDArray[np.int64]) -> dict[str, Interval]:
    return {name: clopper_pearson(int(k), int(n)) for name, (k, n) in zip(CONDITIONS, counts, strict=True)}


def _with_interval(d: Interval) -> str:
    ends = "" if math.isnan(d.low) else f" (95\u00a0% interval {d.low:.2f} to {d.high:.2f})"
    return f"{d.value:.2f}{ends}".replace("-", "\u2212")


def _notes(people: Sequence[AnnotatorNoticing], withdrawn: int) -> Iterator[str]:
    """Yield a sentence for every reason to doubt the figures."""
    started = [p for p in people if p.answered]
    if len(started) % len(CONDITIONS):
        yield (
            f"The number of annotators, {len(started)}, is no multiple of {len(CONDITIONS)}, so that images do not "
            "occur equally often in each condition."
        )
    if unfinished := sum(p.answered < p.of for p in started):
        yield f"{unfinished} of {len(started)} annotators have not finished."
    yield from withdrawal_note(withdrawn)
