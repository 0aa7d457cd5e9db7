"""Annotators who are a formula: their information transfer rate and trust are known, so a study must find them again.

They decide like the diffusion model of two-choice decisions (Wagenmakers, van der Maas and Grasman, An EZ-diffusion
model for response time and accuracy, Psychonomic Bulletin & Review 2007): evidence drifts at rate v to one of two
boundaries that are a apart, so that an answer takes T = t0 + (a / 2v) (1 - e^(-va)) / (1 + e^(-va)) on the average and
is right with probability 1 / (1 + e^(-va)). An explanation that helps raises v: answers become faster and more often
right.

Simplified: among more than two classes a wrong answer is any other class alike, and the time to decide is drawn from a
gamma distribution of that mean and does not depend on whether the answer is right.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underfire.study.store import Answer

if TYPE_CHECKING:
    from underfire.study.design import Item, Study
    from underfire.study.store import Annotator, Store

Ask = Callable[[str, str, dict[str, Any] | None], bytes]
_SHAPE = 4.0  # of the gamma distribution: its standard deviation is half its mean


@dataclass(frozen=True)
class Mind:
    """How an annotator decides.

    Attributes:
        drift: v, how fast evidence comes without an explanation.
        helped: v with one.
        boundary: a, how much evidence is wanted.
        motor: t0, seconds to see and to press.
        eyes: the share of images on which the annotator foresees the true label instead of the model's decision.
    """

    drift: float = 1.0
    helped: float = 2.0
    boundary: float = 1.6
    motor: float = 0.4
    eyes: float = 0.0

    def right(self, explained: bool) -> float:
        """The probability of seeing what the annotator looks for."""
        return 1 / (1 + math.exp(-self._drift(explained) * self.boundary))

    def seconds(self, explained: bool) -> float:
        """The mean time of an answer."""
        v, a = self._drift(explained), self.boundary
        return self.motor + a / (2 * v) * math.tanh(v * a / 2)

    def decide(self, item: Item, explained: bool, classes: Sequence[int], draw: random.Random) -> tuple[int, float]:
        """An answer and its time."""
        sees = item.label if item.label in classes else None
        looked_for = item.prediction if sees is None or draw.random() >= self.eyes else sees
        if draw.random() >= self.right(explained):
            looked_for = draw.choice([c for c in classes if c != looked_for])
        deciding = self.seconds(explained) - self.motor
        return looked_for, self.motor + draw.gammavariate(_SHAPE, deciding / _SHAPE)

    def _drift(self, explained: bool) -> float:
        return self.helped if explained else self.drift


def truth(mind: Mind, study: Study, explained: bool) -> tuple[float, float]:
    """The information transfer rate in bits per second, and the trust coefficient, of endless answers."""
    classes, items = sorted(study.classes), study.items[: study.shown]
    p = mind.right(explained)
    of_model: dict[tuple[int, int], float] = {}
    of_label: dict[tuple[int, int | None], float] = {}
    for item in items:
        sees = mind.eyes if item.label in classes else 0.0
        for answer in classes:
            said = [p if answer == aim else (1 - p) / (len(classes) - 1) for aim in (item.label, item.prediction)]
            mass = (sees * said[0] + (1 - sees) * said[1]) / len(items)
            of_model[answer, item.prediction] = of_model.get((answer, item.prediction), 0.0) + mass
            of_label[answer, item.label] = of_label.get((answer, item.label), 0.0) + mass
    bits = _information(of_model)
    below = _information(of_label)
    return bits / mind.seconds(explained), bits / below if below > 1e-12 else math.nan


def answer_all(mind: Mind, study: Study, store: Store, name: str, seed: int = 0) -> Annotator:
    """Take part in a whole study, straight into the store."""
    annotator, draw, classes = store.join(name), random.Random(f"{seed}/{name}"), sorted(study.classes)
    answers = []
    for number, trial in enumerate(study.plan(annotator.number)):
        said, seconds = mind.decide(study.items[trial.item], trial.explained, classes, draw)
        shown = (annotator.number, number, trial.item, trial.explained, trial.practice)
        answers.append(Answer(*shown, said, seconds, server_seconds=seconds + 0.5, hidden=False))
    store.add(*answers)
    return annotator


def take_part(
    mind: Mind,
    study: Study,
    ask: Ask,
    wait: Callable[[float], None],
    name: str,
    *,
    token: str | None = None,
    seed: int = 0,
    trials: int | None = None,
) -> str:
    """Take part through the web interface, as the page does, and give the token of the personal link.

    Args:
        mind: who answers.
        study: the study; which of its images is shown is known from the picture that arrives.
        ask: sends `(method, path, content)` and gives what came back.
        wait: lets the seconds of an answer pass.
        name: the name to join with.
        token: goes on with this link instead of joining.
        seed: of the answers.
        trials: stop after so many answers; None goes on to the end.
    """
    if token is None:
        token = str(json.loads(ask("POST", "/api/join", {"name": name}))["token"])
    known = {study.picture(i, "image").read_bytes(): item for i, item in enumerate(study.items)}
    draw, classes = random.Random(f"{seed}/{name}"), sorted(study.classes)
    due = json.loads(ask("GET", f"/api/{token}/next", None))
    while not due["done"] and trials != 0:
        item = known[ask("GET", due["image"], None)]
        if due["map"]:
            ask("GET", due["map"], None)
        said, seconds = mind.decide(item, due["explained"], classes, draw)
        wait(seconds)
        content = {"trial": due["trial"], "answer": said, "seconds": seconds, "hidden": False}
        due = json.loads(ask("POST", f"/api/{token}/answer", content))["next"]
        trials = None if trials is None else trials - 1
    return token


def _information(joint: dict[tuple[Any, Any], float]) -> float:
    """The mutual information, in bits, of a table of probabilities."""
    a: dict[Any, float] = {}
    b: dict[Any, float] = {}
    for (i, j), mass in joint.items():
        a[i], b[j] = a.get(i, 0.0) + mass, b.get(j, 0.0) + mass
    return sum(mass * math.log2(mass / (a[i] * b[j])) for (i, j), mass in joint.items() if mass > 0)
