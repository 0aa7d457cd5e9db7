"""Simulate annotators whose information transfer rate and trust coefficient are known, to test what a study measures.

They follow the diffusion model of two-choice decisions (Wagenmakers, van der Maas and Grasman, An EZ-diffusion model
for response time and accuracy, Psychonomic Bulletin & Review 2007): evidence drifts at rate v to one of two boundaries
at distance a. An answer takes T = t0 + (a / 2v) (1 - e^(-va)) / (1 + e^(-va)) on average and is right with probability
1 / (1 + e^(-va)). An explanation that helps raises v: answers become faster and more often right.

This module makes two simplifications: with more than two classes, a wrong answer is any other class with equal
probability; and the decision time is drawn from a gamma distribution with that mean, independent of the answer.

In a study of noticing, an annotator compares the map with the map of the clean image by their intersection over union.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

from underfire.study.store import Answer

if TYPE_CHECKING:
    from underfire.study.design import Item, Study
    from underfire.study.store import Annotator, AnswerStore

Send = Callable[[str, str, dict[str, Any] | None], bytes]
_SHAPE = 4.0  # the shape of the gamma distribution, whose standard deviation is then half its mean


class Mind(Protocol):
    """Anything that answers like an annotator."""

    def decide(self, item: Item, explained: bool, classes: Sequence[int], draw: random.Random) -> tuple[int, float]:
        """Return an answer and its time in seconds."""


@dataclass(frozen=True)
class SimulatedAnnotator:
    """An annotator who decides by the diffusion model.

    Attributes:
        drift: v without an explanation.
        helped: v with an explanation.
        boundary: a, the distance of the boundaries.
        motor: t0, the seconds to perceive the image and to press a key.
        eyes: the share of images on which the annotator answers the true label instead of the model's decision.
    """

    drift: float = 1.0
    helped: float = 2.0
    boundary: float = 1.6
    motor: float = 0.4
    eyes: float = 0.0

    def right(self, explained: bool) -> float:
        """Return the probability that the annotator chooses the intended class."""
        return 1 / (1 + math.exp(-self._drift(explained) * self.boundary))

    def seconds(self, explained: bool) -> float:
        """Return the mean time of an answer, in seconds."""
        v, a = self._drift(explained), self.boundary
        return self.motor + a / (2 * v) * math.tanh(v * a / 2)

    def decide(self, item: Item, explained: bool, classes: Sequence[int], draw: random.Random) -> tuple[int, float]:
        """Return an answer and its time in seconds."""
        label = item.label if item.label in classes else None
        intended = item.prediction if label is None or draw.random() >= self.eyes else label
        if draw.random() >= self.right(explained):
            intended = draw.choice([c for c in classes if c != intended])
        deciding = self.seconds(explained) - self.motor
        return intended, self.motor + draw.gammavariate(_SHAPE, deciding / _SHAPE)

    def _drift(self, explained: bool) -> float:
        return self.helped if explained else self.drift


@dataclass(frozen=True)
class NoticingAnnotator:
    """An annotator who calls an input attacked if its map differs too much from the map of the clean image.

    Attributes:
        threshold: the intersection over union below which the input is called attacked.
        noise: the standard deviation of the normal error with which the intersection over union is perceived.
        seconds: the mean time of an answer.
    """

    threshold: float = 0.5
    noise: float = 0.2
    seconds: float = 2.0

    def decide(self, item: Item, explained: bool, classes: Sequence[int], draw: random.Random) -> tuple[int, float]:
        """Return an answer, 1 for attacked, and its time in seconds."""
        attacked = draw.gauss(item.iou, self.noise) < self.threshold
        return int(attacked), draw.gammavariate(_SHAPE, self.seconds / _SHAPE)

    def share(self, study: Study, condition: str) -> float:
        """Return the share of a condition that the annotator calls attacked, for infinitely many answers."""
        ious = [item.iou for item in study.items[: 3 * study.shown] if item.condition == condition]
        return sum(NormalDist(iou, self.noise).cdf(self.threshold) for iou in ious) / len(ious)


def truth(person: SimulatedAnnotator, study: Study, explained: bool) -> tuple[float, float]:
    """Return the information transfer rate, bits per second, and the trust coefficient for infinitely many answers."""
    classes, items = sorted(study.classes), study.items[: study.shown]
    p = person.right(explained)
    # joint probabilities of the answer and of the prediction or the label
    of_model: dict[tuple[int, int], float] = {}
    of_label: dict[tuple[int, int | None], float] = {}
    for item in items:
        eyes = person.eyes if item.label in classes else 0.0
        for answer in classes:
            by_label, by_model = (
                p if answer == aim else (1 - p) / (len(classes) - 1) for aim in (item.label, item.prediction)
            )
            mass = (eyes * by_label + (1 - eyes) * by_model) / len(items)
            of_model[answer, item.prediction] = of_model.get((answer, item.prediction), 0.0) + mass
            of_label[answer, item.label] = of_label.get((answer, item.label), 0.0) + mass
    model_bits, label_bits = _information(of_model), _information(of_label)
    trust = model_bits / label_bits if label_bits > 1e-12 else math.nan
    return model_bits / person.seconds(explained), trust


def answer_all(person: Mind, study: Study, store: AnswerStore, name: str, seed: int = 0) -> Annotator:
    """Answer all trials of a study and write the answers to the store."""
    annotator, draw, classes = store.join(name), random.Random(f"{seed}/{name}"), sorted(study.classes)
    answers = []
    for number, trial in enumerate(study.plan(annotator.number)):
        answer, seconds = person.decide(study.items[trial.item], trial.explained, classes, draw)
        about = (annotator.number, number, trial.item, trial.explained, trial.practice)
        answers.append(Answer(*about, answer, seconds, server_seconds=seconds + 0.5, hidden=False))
    store.add(*answers)
    return annotator


def take_part(
    person: Mind,
    study: Study,
    send: Send,
    wait: Callable[[float], None],
    name: str,
    *,
    token: str | None = None,
    seed: int = 0,
    trials: int | None = None,
) -> str:
    """Take part through the web interface, as the page does, and return the token of the personal link.

    Args:
        person: the simulated annotator.
        study: the study, which tells which image a received picture shows.
        send: sends a request `(method, path, content)` and returns the response.
        wait: waits for a number of seconds, the time of an answer.
        name: the name to join with.
        token: the token of an annotator to continue as; None joins as a new one.
        seed: the seed of the answers.
        trials: the number of answers after which to stop; None answers all.
    """
    if token is None:
        token = str(json.loads(send("POST", "/api/join", {"name": name, "consent": True}))["token"])
    kind = "image" if study.with_image else "map"
    known = {study.picture(i, kind).read_bytes(): item for i, item in enumerate(study.items)}
    draw, classes = random.Random(f"{seed}/{name}"), sorted(study.classes)
    due = json.loads(send("GET", f"/api/{token}/next", None))
    while not due["done"] and trials != 0:
        # look at the pictures, as the page does
        seen = {k: send("GET", due[k], None) for k in ("image", "map") if due[k]}
        item = known[seen[kind]]
        # answer after the time that the decision takes
        answer, seconds = person.decide(item, due["explained"], classes, draw)
        wait(seconds)
        content = {"trial": due["trial"], "answer": answer, "seconds": seconds, "hidden": False}
        due = json.loads(send("POST", f"/api/{token}/answer", content))["next"]
        trials = None if trials is None else trials - 1
    return token


def _information(joint: dict[tuple[Any, Any], float]) -> float:
    """Return the mutual information in bits of a table of probabilities."""
    a: dict[Any, float] = {}
    b: dict[Any, float] = {}
    for (i, j), mass in joint.items():
        a[i], b[j] = a.get(i, 0.0) + mass, b.get(j, 0.0) + mass
    return sum(mass * math.log2(mass / (a[i] * b[j])) for (i, j), mass in joint.items() if mass > 0)
