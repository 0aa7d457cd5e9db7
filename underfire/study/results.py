"""Compute the results of a study: information transfer rate and trust, without and with explanations.

The answers of all annotators are pooled into one table of answers and predictions, because mutual information is
overestimated from the few answers of one person. With two or more annotators, intervals are over annotators, not over
answers. The difference is paired: each annotator's share with explanations minus the same annotator's share without.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from underfire.errors import InputError
from underfire.measures import human
from underfire.measures.statistics import rate
from underfire.records import Interval
from underfire.study.store import Annotator, Answer

if TYPE_CHECKING:
    from underfire.study.design import Study

CORRECTION = "jackknife"
FASTEST, SLOWEST = 0.15, 60.0
"""The fastest and the slowest answer that counts, in seconds; others are not deliberate decisions."""
_CLOCK_TOLERANCE = 1.0  # seconds by which the times of browser and server may differ
CONDITIONS = {False: "without", True: "with"}


@dataclass(frozen=True)
class AnswerFigures:
    """The figures of a set of answers.

    Attributes:
        n: the number of answers.
        seconds: the median time of an answer; nan where there is none.
        agreement: the share of answers that equal the model's decision.
        rate: information transfer rate, bits per second, corrected for its bias.
        plain: the rate as published, without the correction.
        trust: trust coefficient, corrected.
        why_rate: the reason why there is no rate; empty where there is one.
        why_trust: the reason why there is no trust coefficient; empty where there is one.
    """

    n: int
    seconds: float
    agreement: Interval
    rate: Interval
    plain: float
    trust: Interval
    why_rate: str
    why_trust: str


@dataclass(frozen=True)
class Difference:
    """The value with explanations minus the one without, over the same annotators; `why` is the reason if undefined."""

    value: Interval
    why: str


@dataclass(frozen=True)
class AnnotatorResult:
    """The result of one annotator.

    Attributes:
        name: the pseudonym.
        answered: the number of images with an answer, without practice.
        of: the number of images.
        explained_first: whether the block with explanations came first.
        figures: the figures of both blocks, by condition.
        share: the annotator's share in the pooled rate, by condition; the pooled rate is the mean of all shares. Empty
            unless the annotator has answered in both blocks.
    """

    name: str
    answered: int
    of: int
    explained_first: bool
    figures: dict[str, AnswerFigures]
    share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResults:
    """The results of a study.

    Attributes:
        about: the model, interpreter and data.
        pooled: the figures over all annotators, by condition: `"without"` and `"with"`.
        rate: the difference of the information transfer rates, bits per second.
        trust: the difference of the trust coefficients.
        people: the result of every annotator.
        left_out: the number of answers that do not count, by reason.
        notes: caveats, one sentence each.
    """

    about: dict[str, Any]
    pooled: dict[str, AnswerFigures]
    rate: Difference
    trust: Difference
    people: tuple[AnnotatorResult, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def evaluate(study: Study, annotators: Sequence[Annotator], answers: Iterable[Answer]) -> StudyResults:
    """Compute the results of a study.

    Raises:
        InputError: an answer belongs to another study: its image or class does not exist.
    """
    given = [a for a in answers if not a.practice]
    if any(a.item >= study.shown or a.answer not in study.classes for a in given):
        raise InputError(
            "the answers belong to another study: one has an image or a class that this study does not have"
        )
    # leave out answers that are not decisions
    excluded = [why_excluded(a) for a in given]
    good = [a for a, reason in zip(given, excluded, strict=True) if not reason]
    people = tuple(_person(study, person, given, good) for person in annotators)
    parts = {name: [a for a in good if a.explained is flag] for flag, name in CONDITIONS.items()}
    # the paired difference, over annotators who have answered in both blocks
    both = {a.annotator for a in parts["with"]} & {a.annotator for a in parts["without"]}
    after, before = (
        _estimates(study, [a for a in parts[name] if a.annotator in both], pooled=True) for name in ("with", "without")
    )
    each = zip(sorted(both), before[0].shares.tolist(), after[0].shares.tolist(), strict=True)
    shares = {number: {"without": a, "with": b} for number, a, b in each}
    return StudyResults(
        about={**study.about, "images": study.shown, "classes": [choice.name for choice in study.choices]},
        pooled={name: _figures(study, part, pooled=True) for name, part in parts.items()},
        rate=Difference(*human.difference(after[0], before[0])),
        trust=Difference(*human.difference(after[1], before[1])),
        people=tuple(replace(people[i], share=shares.get(person.number, {})) for i, person in enumerate(annotators)),
        left_out=dict(Counter(reason for reason in excluded if reason)),
        notes=tuple(_notes(study, people, parts)),
    )


def why_excluded(answer: Answer) -> str:
    """Return the reason why an answer does not count, or `""` if it counts."""
    if answer.hidden:
        return "the page was hidden"
    if answer.seconds < FASTEST:
        return f"faster than {FASTEST:g} s"
    if answer.seconds > SLOWEST:
        return f"slower than {SLOWEST:g} s"
    if answer.server_seconds is not None and answer.seconds > answer.server_seconds + _CLOCK_TOLERANCE:
        return "longer than the server measured"
    return ""


def headline(found: StudyResults) -> tuple[str, str]:
    """Return the result as a headline, and as a sentence with its numbers."""
    before, after, gain = found.pooled["without"].rate, found.pooled["with"].rate, found.rate
    if math.isnan(before.value) or math.isnan(after.value):
        why = found.pooled["without"].why_rate or found.pooled["with"].why_rate
        return "There are not enough answers yet", f"There is no information transfer rate: {why}."
    rates = f"The rate is {before.value:.2f} bits per second without explanations and {after.value:.2f} with them"
    if math.isnan(gain.value.low):
        return "Whether the explanations help is not known yet", f"{rates}; {gain.why}."
    low, high = gain.value.low, gain.value.high
    span = f"{rates}: a difference of {gain.value.value:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}."
    if low > 0:
        return "The explanations help people to predict the model", span
    if high < 0:
        return "The explanations hinder people in predicting the model", span
    return "These answers do not show whether the explanations help", span


def _estimates(study: Study, answers: Sequence[Answer], *, pooled: bool) -> tuple[human.Estimate, human.Estimate]:
    """Estimate the rate and the trust coefficient; with `pooled`, each as the mean of one share per annotator."""
    import torch

    who = torch.tensor([a.annotator for a in answers], dtype=torch.long)
    options: dict[str, Any] = {"correction": CORRECTION, "annotators": who if pooled else None}
    chosen = _classes([a.answer for a in answers])
    predicted = _classes([study.items[a.item].prediction for a in answers])
    seconds = torch.tensor([a.seconds for a in answers], dtype=torch.float64)
    labels = [study.items[a.item].label for a in answers]
    rates = human.transfer_rate(chosen, predicted, seconds, **options)
    if None in labels:
        return rates, human.Estimate(math.nan, torch.full_like(rates.shares, math.nan), "the images have no labels")
    return rates, human.trust(chosen, predicted, _classes(labels), **options)


def _figures(study: Study, answers: Sequence[Answer], *, pooled: bool) -> AnswerFigures:
    """Compute all figures of a set of answers; with `pooled`, the intervals are over annotators."""
    import torch

    several = pooled and len({a.annotator for a in answers}) > 1
    rates, trust = _estimates(study, answers, pooled=several)
    predicted = [study.items[a.item].prediction for a in answers]
    chosen, seconds = [a.answer for a in answers], [a.seconds for a in answers]
    plain = human.information_transfer_rate(
        _classes(chosen), _classes(predicted), torch.tensor(seconds, dtype=torch.float64)
    )
    return AnswerFigures(
        n=len(answers),
        seconds=median(seconds) if seconds else math.nan,
        agreement=rate([a == b for a, b in zip(chosen, predicted, strict=True)]),
        rate=rates.interval(),
        plain=plain,
        trust=trust.interval(),
        why_rate=rates.why,
        why_trust=trust.why,
    )


def _person(study: Study, person: Annotator, given: Sequence[Answer], good: Sequence[Answer]) -> AnnotatorResult:
    """Compute the result of one annotator from all answers `given` and from the `good` ones, which count."""
    own = [a for a in good if a.annotator == person.number]
    parts = {name: [a for a in own if a.explained is flag] for flag, name in CONDITIONS.items()}
    return AnnotatorResult(
        name=person.name,
        answered=sum(a.annotator == person.number for a in given),
        of=study.shown,
        explained_first=study.plan(person.number)[0].explained,
        figures={name: _figures(study, part, pooled=False) for name, part in parts.items()},
    )


def _notes(study: Study, people: Sequence[AnnotatorResult], parts: dict[str, list[Answer]]) -> Iterable[str]:
    """Yield a sentence for every reason to doubt the figures."""
    k, fewest = len(study.choices), min(len(part) for part in parts.values())
    if 0 < fewest < 4 * k * k:
        yield (
            f"With {fewest} answers for {k} classes the rates are too large, even after the correction; with about "
            f"{4 * k * k} answers for each condition this bias is small. The bias of the difference is smaller."
        )
    started = [p for p in people if p.answered]
    first = sum(p.explained_first for p in started)
    if started and 2 * first != len(started):
        yield (
            f"{first} of {len(started)} annotators began with explanations, not half of them: practice and tiredness "
            "also change the difference."
        )
    if any(0 < p.answered < p.of for p in people):
        yield f"{sum(0 < p.answered < p.of for p in people)} of {len(started)} annotators have not finished."
    wrong = sum(item.wrong for item in study.items[: study.shown])
    if all(item.label is not None for item in study.items) and wrong < 0.1 * study.shown:
        yield (
            f"The model is wrong about only {wrong} of the {study.shown} images, so predictions and labels are almost "
            "equal and the trust coefficient must be near 1; a study prepared with --mistakes is more informative."
        )


def _classes(values: Iterable[int | None]) -> Any:
    import torch

    return torch.tensor(list(values), dtype=torch.long)
