"""Measure detectors against attackers that do not know them and against attackers that do, on the same images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from underfire import data
from underfire.ascent.evasion import evade
from underfire.ascent.objectives import margin
from underfire.attacks.pgd import pgd
from underfire.catalog import find
from underfire.detectors import Detector, Guard
from underfire.learning import model_fingerprint
from underfire.measures.detection import Threshold, threshold
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.attacks import correct
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Setting

RATE = 0.05
"""The false-positive rate of every threshold."""
WEIGHT = 10.0
"""The weight of the hinge of the score, in standard deviations of clean scores, against the margin, in logits."""
AWARE = ("guard", "hinge")
"""The attackers that know the detector: one attacks the guard, the other lowers the score beside the margin."""
_PART = 25  # images that are attacked at once: an interrupted run loses one part
_CHUNK = 100  # images that are scored at once


@dataclass(frozen=True)
class Sizes:
    """The numbers of images, each of which has one use, and the steps of an attack.

    Attributes:
        fit: training images that the detectors learn from.
        learned: of these, the ones that are attacked for the detectors that learn from attacks.
        choose: clean test images that the thresholds are chosen from.
        clean: clean test images, the negatives.
        attacked: test images that are attacked; the model classifies them correctly.
        steps: steps of PGD.
    """

    fit: int
    learned: int
    choose: int
    clean: int
    attacked: int
    steps: int


@dataclass(frozen=True)
class Contest:
    """A network, its images, the size of the attack, and the detectors that are attacked.

    Attributes:
        network: returns the classifier.
        train, test: the URIs of the images, with `{root}` for the folder of the data.
        eps: the size of the attack, in L-infinity.
        detectors: the options of each detector, with its `name`, by its label.
        sizes: the numbers of images, by the scale of a run.
        transferred: the detectors whose attacked images are tried on one without a gradient.
    """

    network: Callable[[Setting], Classifier]
    train: str
    test: str
    eps: float
    detectors: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, Sizes]
    transferred: tuple[str, ...] = ()

    def spec(self, setting: Setting) -> dict[str, Any]:
        """Return everything that determines the numbers."""
        return {
            "train": self.train.format(root=setting.root),
            "test": self.test.format(root=setting.root),
            "images": vars(self.sizes[setting.scale]),
            "attack": {"name": "pgd", "norm": "linf", "eps": self.eps, "weight of the hinge": WEIGHT},
            "detectors": {label: dict(options) for label, options in self.detectors.items()},
            "false_positive_rate": RATE,
            "seed": setting.seed,
        }


@dataclass(frozen=True)
class Result:
    """One detector against attackers that do not know it and against ones that do.

    Attributes:
        at: the threshold.
        clean: the scores of the clean images.
        attacked: the score of each attacked image by the attacker, `[n]`; infinite where the model still predicts the
            label.
    """

    at: Threshold
    clean: np.ndarray
    attacked: dict[str, np.ndarray] = field(default_factory=dict)

    def lowest(self, aware: bool) -> Any:
        """Return the lowest score of a success on each image, infinite if there is none, `[n]`.

        An attacker who knows the detector has the attacks of one who does not, too.
        """
        return np.min([of for name, of in self.attacked.items() if aware or name == "unaware"], axis=0)


def measure(contest: Contest, setting: Setting) -> dict[str, Result]:
    """Fit every detector, and attack the classifier alone and together with each.

    Parts that an earlier run has finished are read from the work folder.
    """
    sizes, model = contest.sizes[setting.scale], contest.network(setting)
    facts = {"uris": [contest.train, contest.test], "sizes": vars(sizes), "eps": contest.eps}
    store = Store.of(setting, "adaptive", facts | {"rate": RATE, "weight": WEIGHT, "model": model_fingerprint(model)})
    known = data.load(contest.train.format(root=setting.root), n=sizes.fit, seed=setting.seed)[:].to(setting.device)
    choose, clean, batch = _test_images(contest, setting, model, sizes)
    unaware = partial(_attack, model, contest.eps, sizes.steps)
    # what detectors that learn from attacks learn from, and the attack that knows no detector
    first = known.take(torch.arange(sizes.learned))
    x = store.in_parts("learned", first, _PART, lambda part: unaware(part, None), setting.progress)
    lesson = Batch(x, first.y, first.ids)
    plain = store.in_parts("unaware", batch, _PART, lambda part: unaware(part, None), setting.progress)
    results: dict[str, Result] = {}
    found: dict[str, dict[str, Tensor]] = {}
    for label, options in contest.detectors.items():
        name = _named(label, options)
        setting.progress(len(results), len(contest.detectors), f"fitting: {label}")
        costly = not find("detector", str(options["name"])).facts.differentiable
        usual = known.take(torch.arange(sizes.learned)) if costly else known
        detector = store.detector(name, partial(_fitted, options, model, usual, lesson))
        own = store.tensors(f"{name}, clean", partial(_clean_scores, detector, model, choose.x, clean.x))
        at = threshold(own["choose"], RATE)
        guard = Guard(model, detector, at, scale=max(float(own["choose"].std()), 1e-6))
        # attack; a detector without a gradient gets the images that were made against others
        found[label] = {"unaware": plain}
        for how in AWARE:
            if costly:
                found[label] |= {f"{how}, {other}": found[other][how] for other in contest.transferred}
                continue
            attack = partial(_attack, model, contest.eps, sizes.steps, guard=guard, how=how)
            found[label][how] = store.in_parts(f"{name}, {how}", batch, _PART, attack, setting.progress)
        attacked: dict[str, np.ndarray] = {}
        for how, x in found[label].items():
            columns = store.tensors(f"{name}, {how}, scores", partial(_successes, detector, model, x, batch.y))
            attacked[how] = columns["scores"].numpy()
        results[label] = Result(at, own["clean"].numpy(), attacked)
    return results


def _attack(
    model: Classifier, eps: float, steps: int, batch: Batch, guard: Guard | None = None, how: str = "unaware"
) -> Tensor:
    """Attack images: the classifier alone, the guard, or the classifier with the hinge of the score beside the margin.

    The attack on the guard aims at the class that the classifier finds likeliest after the label.
    """
    generator = Generator(batch.x.device).manual_seed(0)
    options: dict[str, Any] = {"eps": eps, "steps": steps, "generator": generator}
    if guard is None:
        return pgd(model, batch.x, batch.y, **options)
    if how == "guard":
        return pgd(guard, batch.x, batch.y, goal=guard.likeliest_wrong(batch.x, batch.y), **options)
    scale = guard.module.scale
    hinge = evade(guard.detector, guard.threshold.value, slack=0.1 * scale)
    return pgd(model, batch.x, batch.y, objective=margin() + (WEIGHT / scale) * hinge, **options)


def _clean_scores(detector: Detector, model: Classifier, choose: Tensor, clean: Tensor) -> dict[str, Tensor]:
    return {"choose": _scores(detector, model, choose), "clean": _scores(detector, model, clean)}


def _successes(detector: Detector, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the `scores` of attacked images, infinite where the model still predicts the label."""
    right = (model.predict(x).argmax(1) == y).cpu()
    return {"scores": torch.where(right, torch.inf, _scores(detector, model, x))}


def _fitted(options: Mapping[str, Any], model: Classifier, known: Batch, lesson: Batch) -> Detector:
    card = find("detector", str(options["name"]))
    detector: Any = card.with_options(**card.check({key: v for key, v in options.items() if key != "name"}))
    found: Detector = detector.fit(model, known, lesson)
    return found


def _scores(detector: Detector, model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([detector.score(model, part).double().cpu() for part in x.split(_CHUNK)])


def _test_images(contest: Contest, setting: Setting, model: Classifier, sizes: Sizes) -> tuple[Batch, Batch, Batch]:
    """Return disjoint test images: for the thresholds, for the negatives, and to attack."""
    n = sizes.choose + sizes.clean + int(1.2 * sizes.attacked) + 10
    drawn = data.load(contest.test.format(root=setting.root), n=n, seed=setting.seed)[:].to(setting.device)
    order = torch.randperm(n, generator=Generator().manual_seed(setting.seed))
    choose, clean, rest = (
        drawn.take(part) for part in order.split([sizes.choose, sizes.clean, n - sizes.choose - sizes.clean])
    )
    return choose, clean, correct(model, rest, sizes.attacked)


def _named(label: str, options: Mapping[str, Any]) -> str:
    """Return the name of the files of a detector, which its options are part of."""
    return f"{label}-{hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode()).hexdigest()[:8]}"
