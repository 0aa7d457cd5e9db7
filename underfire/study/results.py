"""What the answers of a study say: information transfer rate and trust, without and with explanations.

The answers of all annotators are pooled into one table of answers and predictions, because a mutual information from
the few answers of one person comes out too large; the intervals are over people, not answers, wherever there are two
or more. The comparison is paired: each annotator's share with explanations minus the same annotator's share without.
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
"""Seconds: nobody sees, decides and presses a key faster; who takes longer was doing something else."""
_SLACK = 1.0  # seconds that the two clocks may differ
CONDITIONS = {False: "without", True: "with"}


@dataclass(frozen=True)
class Figures:
    """What a set of answers gives.

    Attributes:
        n: how many answers.
        seconds: the median time of an answer; nan where there is none.
        agreement: the share of answers that are the model's decision.
        rate: information transfer rate, bits per second, corrected for its bias.
        plain: the same as published, without a correction.
        trust: trust coefficient, corrected.
        why_rate: why there is no rate; empty where there is one.
        why_trust: why there is no trust coefficient.
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
    """With minus without explanations, over the same annotators; and why it is undefined."""

    value: Interval
    why: str


@dataclass(frozen=True)
class Person:
    """One annotator.

    Attributes:
        name: the pseudonym.
        answered: how many images have an answer, practice aside.
        of: how many there are.
        explained_first: whether the block with explanations came first.
        figures: of both blocks.
        share: the annotator's share in the pooled rate, by condition; the pooled rate is the mean of all shares. Of
            annotators who have answered in both blocks.
    """

    name: str
    answered: int
    of: int
    explained_first: bool
    figures: dict[str, Figures]
    share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """The results of a study.

    Attributes:
        about: the model, interpreter and data.
        pooled: figures over all annotators, by condition: `"without"` and `"with"`.
        rate: difference of the information transfer rates, bits per second.
        trust: difference of the trust coefficients.
        people: every annotator.
        left_out: how many answers do not count, by reason.
        notes: what to keep in mind when reading the figures, one sentence each.
    """

    about: dict[str, Any]
    pooled: dict[str, Figures]
    rate: Difference
    trust: Difference
    people: tuple[Person, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def findings(study: Study, annotators: Sequence[Annotator], answers: Iterable[Answer]) -> Findings:
    """The results of a study.

    Raises:
        InputError: an answer is of another study: its image or class does not exist.
    """
    given = [a for a in answers if not a.practice]
    if any(a.item >= study.shown or a.answer not in study.classes for a in given):
        raise InputError(
            "the answers belong to another study: one has an image or a class that this study does not have"
        )
    doubts = [doubt(a) for a in given]
    good = [a for a, reason in zip(given, doubts, strict=True) if not reason]
    people = tuple(_person(study, person, given, good) for person in annotators)
    parts = {name: [a for a in good if a.explained is flag] for flag, name in CONDITIONS.items()}
    both = {a.annotator for a in parts["with"]} & {a.annotator for a in parts["without"]}
    after, before = (
        _estimates(study, [a for a in parts[name] if a.annotator in both], pooled=True) for name in ("with", "without")
    )
    each = zip(sorted(both), before[0].shares.tolist(), after[0].shares.tolist(), strict=True)
    shares = {number: {"without": a, "with": b} for number, a, b in each}
    return Findings(
        about={**study.about, "images": study.shown, "classes": [choice.name for choice in study.choices]},
        pooled={name: _figures(study, part, pooled=True) for name, part in parts.items()},
        rate=Difference(*human.difference(after[0], before[0])),
        trust=Difference(*human.difference(after[1], before[1])),
        people=tuple(replace(people[i], share=shares.get(person.number, {})) for i, person in enumerate(annotators)),
        left_out=dict(Counter(reason for reason in doubts if reason)),
        notes=tuple(_notes(study, people, parts)),
    )


def doubt(answer: Answer) -> str:
    """Why the time of an answer cannot be believed; empty where it can."""
    if answer.hidden:
        return "the page was out of sight"
    if answer.seconds < FASTEST:
        return f"faster than {FASTEST:g} s"
    if answer.seconds > SLOWEST:
        return f"slower than {SLOWEST:g} s"
    if answer.server_seconds is not None and answer.seconds > answer.server_seconds + _SLACK:
        return "longer than the server saw it take"
    return ""


def verdict(found: Findings) -> tuple[str, str]:
    """The result in a headline, and in a sentence with its numbers."""
    before, after, gain = found.pooled["without"].rate, found.pooled["with"].rate, found.rate
    if math.isnan(before.value) or math.isnan(after.value):
        why = found.pooled["without"].why_rate or found.pooled["with"].why_rate
        return "There are not enough answers yet", f"There is no information transfer rate: {why}."
    rates = (
        f"Annotators took in {before.value:.2f} bits per second without explanations and {after.value:.2f} with them"
    )
    if math.isnan(gain.value.low):
        return "Whether the explanations help is not known yet", f"{rates}; {gain.why}."
    low, high = gain.value.low, gain.value.high
    span = f"{rates}: a difference of {gain.value.value:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}."
    if low > 0:
        return "The explanations help people to see what the model decides", span
    if high < 0:
        return "The explanations get in the way of seeing what the model decides", span
    return "These answers do not tell whether the explanations help", span


def _estimates(study: Study, answers: Sequence[Answer], *, pooled: bool) -> tuple[human.Estimate, human.Estimate]:
    """Rate and trust; with one share for each person where `pooled` and there are two or more."""
    import torch

    who = torch.tensor([a.annotator for a in answers], dtype=torch.long)
    options: dict[str, Any] = {"correction": CORRECTION, "annotators": who if pooled else None}
    said, model = _classes([a.answer for a in answers]), _classes([study.items[a.item].prediction for a in answers])
    seconds = torch.tensor([a.seconds for a in answers], dtype=torch.float64)
    labels = [study.items[a.item].label for a in answers]
    rates = human.transfer_rate(said, model, seconds, **options)
    if None in labels:
        return rates, human.Estimate(math.nan, torch.full_like(rates.shares, math.nan), "the images have no labels")
    return rates, human.trust(said, model, _classes(labels), **options)


def _figures(study: Study, answers: Sequence[Answer], *, pooled: bool) -> Figures:
    import torch

    several = pooled and len({a.annotator for a in answers}) > 1
    rates, trust = _estimates(study, answers, pooled=several)
    model = [study.items[a.item].prediction for a in answers]
    said, seconds = [a.answer for a in answers], [a.seconds for a in answers]
    plain = human.information_transfer_rate(_classes(said), _classes(model), torch.tensor(seconds, dtype=torch.float64))
    return Figures(
        n=len(answers),
        seconds=median(seconds) if seconds else math.nan,
        agreement=rate([a == b for a, b in zip(said, model, strict=True)]),
        rate=rates.interval(),
        plain=plain,
        trust=trust.interval(),
        why_rate=rates.why,
        why_trust=trust.why,
    )


def _person(study: Study, person: Annotator, given: Sequence[Answer], good: Sequence[Answer]) -> Person:
    own = [a for a in good if a.annotator == person.number]
    parts = {name: [a for a in own if a.explained is flag] for flag, name in CONDITIONS.items()}
    return Person(
        name=person.name,
        answered=sum(a.annotator == person.number for a in given),
        of=study.shown,
        explained_first=study.plan(person.number)[0].explained,
        figures={name: _figures(study, part, pooled=False) for name, part in parts.items()},
    )


def _notes(study: Study, people: Sequence[Person], parts: dict[str, list[Answer]]) -> Iterable[str]:
    k, fewest = len(study.choices), min(len(part) for part in parts.values())
    if 0 < fewest < 4 * k * k:
        yield (
            f"With {fewest} answers for {k} classes the rates still come out too large, also after the correction; "
            f"about {4 * k * k} answers for each condition make this small. The difference suffers less than the rates."
        )
    started = [p for p in people if p.answered]
    first = sum(p.explained_first for p in started)
    if started and 2 * first != len(started):
        yield (
            f"{first} of {len(started)} annotators began with explanations: until it is half of them, practice and "
            "tiredness also move the difference."
        )
    if any(0 < p.answered < p.of for p in people):
        yield f"{sum(0 < p.answered < p.of for p in people)} of {len(started)} annotators have not finished."
    wrong = sum(item.wrong for item in study.items[: study.shown])
    if all(item.label is not None for item in study.items) and wrong < 0.1 * study.shown:
        yield (
            f"The model is wrong about {wrong} of the {study.shown} images, so predictions and labels are almost the "
            "same and the trust coefficient must be near 1; a study prepared with --mistakes tells more."
        )


def _classes(values: Iterable[int | None]) -> Any:
    import torch

    return torch.tensor(list(values), dtype=torch.long)
