"""Detect attacks on CIFAR-10 by ML-LOO, LID, Mahalanobis distance, and kernel density with uncertainty (Yang 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator

from underfire import data, models
from underfire.learning import model_fingerprint
from underfire.measures.detection import auroc
from underfire.measures.detection_over_attacks import over_attacks
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.detection.attacks import Attack, attacked, correct
from underfire.reproductions.detection.learned_detectors import (
    BLOCKS,
    DROPOUT,
    ML_LOO,
    OTHERS,
    SAMPLES,
    Images,
    scores_of,
)
from underfire.reproductions.detection.page import show
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Outcome, Setting, table

DATA = "parquet:{root}/cifar10-test.parquet"
ATTACKS = {
    "FGSM": Attack("fgsm", {"eps": 8 / 255}),
    "JSMA": Attack("jsma", {"share": 0.1}),
    "C&W": Attack("carlini_wagner", {"steps": 100, "binary_search_steps": 5, "c": 0.01, "step_size": 0.01}),
}
PUBLISHED = {
    ML_LOO: {"FGSM": 0.997, "JSMA": 0.985, "C&W": 0.995},
    "LID": {"FGSM": 0.972, "JSMA": 0.985, "C&W": 0.990},
    "Mahalanobis": {"FGSM": 0.764, "JSMA": 0.942, "C&W": 0.962},
    "KD+BU": {"FGSM": 0.673, "JSMA": 0.614, "C&W": 0.623},
}
"""The ROC-AUC of the paper, by detector and attack."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of test images, all of them classified correctly, each of which has one use.

    Attributes:
        fit: images that are attacked to fit the detectors.
        test: images that are attacked to test them.
        known: further clean images for the statistics of the detectors beside ML-LOO.
    """

    fit: int
    test: int
    known: int


SIZES = {"quick": Sizes(3, 2, 120), "default": Sizes(50, 50, 600), "full": Sizes(800, 200, 1000)}

_HOW = """Each cell is the ROC-AUC with its 95 % DeLong interval; the positive class is the successful attacks on {test}
images, and the negatives are these images without the attack. In this table, a detector has learned from the same
attack on {fit} other images. The paper learns from 800 images and tests on 200, as `--full` does; an image costs ML-LOO
3,073 passes. ML-LOO reads the interquartile ranges of the attributions of the nine blocks (spatial means), of the ten
probabilities and of the predicted one. The other detectors have {known} clean images more for their statistics, and
noisy copies as in their papers; LID reads the blocks and the logits, and KD+BU makes {samples} passes with dropout. The
network has no dropout, so KD+BU drops {dropout:.0%} of the units before its last layer, which it was not trained for.
C&W has the settings of the authors' code; the sizes of FGSM (8/255) and JSMA (10 % of the values) are ours, since the
passages of the paper state none."""

_OTHER = """**An attack that the detector has not learned from.** Each detector learns from the other two attacks
together."""


def network(setting: Setting) -> Classifier:
    """Return ResNet-20 with its public weights."""
    return models.load(
        f"{setting.root}/weights/resnet20_cifar10.safetensors?arch=resnet20_cifar10", device=setting.device
    )


def run(setting: Setting) -> Outcome:
    """Attack images, fit the detectors to some of them, and score the others."""
    sizes, model = SIZES[setting.scale], network(setting)
    facts = {"data": DATA, "sizes": vars(sizes), "attacks": {name: one.spec() for name, one in ATTACKS.items()}}
    store = Store.of(setting, "ml-loo-cifar10", facts | {"model": model_fingerprint(model)})
    parts = _drawn(model, setting, sizes)
    images, successes = {}, {}
    for part in ("fit", "test"):
        hits = {}
        for name, attack in ATTACKS.items():
            found = attacked(attack, model, parts[part], f"{name}, {part}", store, setting.progress)
            rows = found.success.nonzero().flatten().cpu()
            own = parts[part].take(rows)
            hits[name] = Batch(found.x[rows.to(found.x.device)], own.y, own.ids)
            successes[f"{name}, {part}"] = rate(found.success.cpu())
        images[part] = Images(parts[part], hits)
    scores = scores_of(model, parts["known"], images["fit"], images["test"], store, setting.progress)
    return outcome(setting, sizes, scores, successes)


def outcome(
    setting: Setting,
    sizes: Sizes,
    scores: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    successes: Mapping[str, Interval],
) -> Outcome:
    """Return the outcome, from the scores by detector, by what it learned from, and by attack."""
    areas = {
        name: {
            lesson: {attack: auroc(of["clean"], values) for attack, values in of.items() if attack != "clean"}
            for lesson, of in lessons.items()
        }
        for name, lessons in scores.items()
    }
    columns, rows, unseen = ("detector", *ATTACKS, "worst", "mean"), [], []
    over = {}
    for name, found in areas.items():
        own = {attack: found[attack][attack] for attack in ATTACKS}
        worst = min(own, key=lambda attack: own[attack].value)
        mean = float(np.mean([area.value for area in own.values()]))
        rows.append([name, *(show(area) for area in own.values()), worst, f"{mean:.4f}"])
        rows.append([f"{name}, paper", *(f"{PUBLISHED[name][attack]:.3f}" for attack in ATTACKS), "", ""])
        other = {attack: found[f"not {attack}"][attack] for attack in ATTACKS}
        unseen.append([name, *(show(area) for area in other.values())])
        over[name] = {
            lesson: over_attacks(of["clean"], {attack: values for attack, values in of.items() if attack != "clean"})
            for lesson, of in scores[name].items()
        }
    shares = ", ".join(f"{attack} {successes[f'{attack}, test']}" for attack in ATTACKS)
    how = _HOW.format(fit=sizes.fit, test=sizes.test, known=sizes.known, dropout=DROPOUT, samples=SAMPLES)
    return Outcome(
        title="ML-LOO and three other detectors on CIFAR-10",
        source="Yang, Chen, Hsieh, Wang and Jordan, ML-LOO: Detecting Adversarial Examples with Feature Attribution, "
        "AAAI 2020",
        spec={
            "data": DATA.format(root=setting.root),
            "model": "resnet20_cifar10",
            "images": vars(sizes),
            "attacks": {name: attack.spec() for name, attack in ATTACKS.items()},
            "layers": BLOCKS,
            "dispersion": "iqr",
            "seed": setting.seed,
        },
        columns=columns,
        rows=rows,
        notes=[
            how + f" Successes on the test images: {shares}.",
            "**What was published**\n\n" + table(("claim", "verdict", "figures"), claims(areas)),
            _OTHER + "\n\n" + table(("detector", *ATTACKS), unseen),
            "These attacks do not know the detectors; those of `underfire reproduce detectors-adaptive-cifar10` do.",
        ],
        results={"areas": areas, "over": over, "success": successes},
    )


def claims(areas: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> list[list[str]]:
    """Return, for each attack, whether ML-LOO reaches the published figure and whether it is above the others."""
    rows = []
    for attack in ATTACKS:
        own, wanted = areas[ML_LOO][attack][attack], PUBLISHED[ML_LOO][attack]
        near = ", by less than the interval" if own.value < wanted <= own.high else ""
        rows.append([f"{attack}: ML-LOO at {wanted:g}", _verdict(own.value >= wanted) + near, show(own)])
        best = max(OTHERS, key=lambda name: areas[name][attack][attack].value)
        other = areas[best][attack][attack]
        figures = f"{show(own)} against {show(other)} ({best})"
        rows.append([f"{attack}: ML-LOO at or above all others", _verdict(own.value >= other.value), figures])
    return rows


def _verdict(holds: bool) -> str:
    return f"**{'reached' if holds else 'missed'}**"


def _drawn(model: Classifier, setting: Setting, sizes: Sizes) -> dict[str, Batch]:
    """Return disjoint test images that the model classifies correctly: to fit, to test, and for the statistics."""
    counts: dict[str, Any] = vars(sizes)
    total = sum(counts.values())
    n = min(10_000, int(1.2 * total) + 20)
    drawn = data.load(DATA.format(root=setting.root), n=n, seed=setting.seed)[:].to(setting.device)
    order = torch.randperm(n, generator=Generator().manual_seed(setting.seed))
    right = correct(model, drawn.take(order), total)
    starts = np.cumsum([0, *counts.values()])
    return {
        name: right.take(torch.arange(start, start + count))
        for (name, count), start in zip(counts.items(), starts, strict=False)
    }
