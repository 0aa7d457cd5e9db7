"""Compute the results of a study: information transfer rate and trust, without and with explanations.

The answers of all annotators are pooled into one table of answers and predictions, because mutual information is
overestimated from the few answers of one person. With two or more annotators, intervals are over annotators, not over
answers. The difference is paired: each annotator's share with explanations minus the same annotator's share without.
Rates and trust coefficients from too few answers are withheld (see `checks`): they are undefined and say why.
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
from underfire.study.checks import (
    hasty_notes,
    like_random_keys,
    too_few,
    too_few_annotators,
    why_excluded,
    withdrawal_note,
)
from underfire.study.store import Annotator, Answer

if TYPE_CHECKING:
    from underfire.study.design import Study

CORRECTION = "jackknife"
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
        random: whether the answers cannot be told from random keys (G-test at 0.1 %); False for too few answers.
    """

    n: int
    seconds: float
    agreement: Interval
    rate: Interval
    plain: float
    trust: Interval
    why_rate: str
    why_trust: str
    random: bool


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
            unless the annotator has answered in both blocks and the pooled rates are defined.
        code: the completion code; empty for an annotator who has not finished.
    """

    name: str
    answered: int
    of: int
    explained_first: bool
    figures: dict[str, AnswerFigures]
    share: dict[str, float] = field(default_factory=dict)
    code: str = ""


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


def evaluate(
    study: Study, annotators: Sequence[Annotator], answers: Iterable[Answer], *, withdrawn: int = 0
) -> StudyResults:
    """Compute the results of a study.

    Args:
        study: the study.
        annotators: those who take part.
        answers: their answers.
        withdrawn: the number of annotators who have withdrawn, for the notes.

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
    pooled = {name: _figures(study, part, pooled=True) for name, part in parts.items()}
    # the paired difference, over annotators who have answered in both blocks
    both = {a.annotator for a in parts["with"]} & {a.annotator for a in parts["without"]}
    after, before = (
        _estimates(study, [a for a in parts[name] if a.annotator in both], pooled=True) for name in ("with", "without")
    )
    few = too_few_annotators(len(both))
    rates, trusts = (human.difference(after[i], before[i]) for i in (0, 1))
    shares: dict[int, dict[str, float]] = {}
    if not (few or rates[1]):
        each = zip(sorted(both), before[0].shares.tolist(), after[0].shares.tolist(), strict=True)
        shares = {number: {"without": a, "with": b} for number, a, b in each}
    return StudyResults(
        about={**study.about, "images": study.shown, "classes": [choice.name for choice in study.choices]},
        pooled=pooled,
        rate=_difference(*rates, few),
        trust=_difference(*trusts, few),
        people=tuple(replace(people[i], share=shares.get(person.number, {})) for i, person in enumerate(annotators)),
        left_out=dict(Counter(reason for reason in excluded if reason)),
        notes=(*_notes(study, people, pooled, withdrawn), *hasty_notes(annotators, given)),
    )


def headline(found: StudyResults) -> tuple[str, str]:
    """Return the result as a headline, and as a sentence with its numbers."""
    before, after, gain = found.pooled["without"], found.pooled["with"], found.rate
    if why := before.why_rate or after.why_rate:
        part = "without" if before.why_rate else "with"
        return "There are not enough answers yet", f"There is no information transfer rate {part} explanations: {why}."
    if before.random and after.random:
        return "The answers cannot be told from random keys", (
            "They do not depend on the model's decisions, neither without nor with explanations (G-test, p > 0.001): "
            "the rates say nothing."
        )
    low, high = before.rate.value, after.rate.value
    rates = f"The rate is {low:.2f} bits per second without explanations and {high:.2f} with them"
    if gain.why:
        return "Whether the explanations help is not known yet", f"{rates}. Their difference is not shown: {gain.why}."
    low, high = gain.value.low, gain.value.high
    span = f"{rates}: a difference of {gain.value.value:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}."
    if low > 0:
        return "The explanations help people to predict the model", span
    if high < 0:
        return "The explanations hinder people in predicting the model", span
    return "These answers do not show whether the explanations help", span


def _difference(value: Interval, why: str, few: str) -> Difference:
    """Return a difference, undefined where the estimates are undefined or there are too few annotators."""
    why = why or few
    return Difference(Interval(math.nan, math.nan, math.nan, value.n) if why else value, why)


def _estimates(study: Study, answers: Sequence[Answer], *, pooled: bool) -> tuple[human.Estimate, human.Estimate]:
    """Estimate the rate and the trust coefficient; with `pooled`, each as the mean of one share per annotator."""
    import torch

    who = torch.tensor([a.annotator for a in answers], dtype=torch.long)
    options: dict[str, Any] = {"correction": CORRECTION, "annotators": who if pooled else None}
    chosen = _classes([a.answer for a in answers])
    predicted = _classes([study.items[a.item].prediction for a in answers])
    seconds = torch.tensor([a.seconds for a in answers], dtype=torch.float64)
    labels = [study.items[a.item].label for a in answers]
    few = too_few(len(answers), len(study.choices))
    rates = human.transfer_rate(chosen, predicted, seconds, **options)
    if few:
        rates = _withheld(rates, few)
    if None in labels:
        return rates, _withheld(rates, "the images have no labels")
    if few:
        return rates, _withheld(rates, few)
    if like_random_keys(chosen.tolist(), [label for label in labels if label is not None]):
        return rates, _withheld(rates, "the answers depend on the labels no more than random keys")
    return rates, human.trust(chosen, predicted, _classes(labels), **options)


def _withheld(estimate: human.Estimate, why: str) -> human.Estimate:
    """Return an estimate without its value, and why there is none."""
    import torch

    return human.Estimate(math.nan, torch.full_like(estimate.shares, math.nan), why)


def _figures(study: Study, answers: Sequence[Answer], *, pooled: bool) -> AnswerFigures:
    """Compute all figures of a set of answers; with `pooled`, the intervals are over annotators."""
    import torch

    several = pooled and len({a.annotator for a in answers}) > 1
    rates, trust = _estimates(study, answers, pooled=several)
    predicted = [study.items[a.item].prediction for a in answers]
    chosen, seconds = [a.answer for a in answers], [a.seconds for a in answers]
    plain = math.nan
    if not rates.why:
        times = torch.tensor(seconds, dtype=torch.float64)
        plain = human.information_transfer_rate(_classes(chosen), _classes(predicted), times)
    return AnswerFigures(
        n=len(answers),
        seconds=median(seconds) if seconds else math.nan,
        agreement=rate([a == b for a, b in zip(chosen, predicted, strict=True)]),
        rate=rates.interval(),
        plain=plain,
        trust=trust.interval(),
        why_rate=rates.why,
        why_trust=trust.why,
        random=not rates.why and like_random_keys(chosen, predicted),
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
        code=person.code,
    )


def _notes(
    study: Study, people: Sequence[AnnotatorResult], pooled: dict[str, AnswerFigures], withdrawn: int
) -> Iterable[str]:
    """Yield a sentence for every reason to doubt the figures."""
    random = [name for name, part in pooled.items() if part.random]
    if len(random) == 1:
        yield f"The answers {random[0]} explanations cannot be told from random keys (G-test, p > 0.001)."
    started = [p for p in people if p.answered]
    first = sum(p.explained_first for p in started)
    if started and 2 * first != len(started):
        yield (
            f"{first} of {len(started)} annotators began with explanations, not half of them: practice and tiredness "
            "also change the difference."
        )
    if any(0 < p.answered < p.of for p in people):
        yield f"{sum(0 < p.answered < p.of for p in people)} of {len(started)} annotators have not finished."
    yield from withdrawal_note(withdrawn)
    wrong = sum(item.wrong for item in study.items[: study.shown])
    if all(item.label is not None for item in study.items) and wrong < 0.1 * study.shown:
        yield (
            f"The model is wrong about only {wrong} of the {study.shown} images, so predictions and labels are almost "
            "equal and the trust coefficient must be near 1; a study prepared with --mistakes is more informative."
        )


def _classes(values: Iterable[int | None]) -> Any:
    import torch

    return torch.tensor(list(values), dtype=torch.long)
