"""Train RTS with ADV² in the loop (AID) and compare it with RTS: under ADV², on clean images and under noise."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire import data, models
from underfire.attacks import adv2
from underfire.audit.goals import choose_goal
from underfire.interpreters import RTS
from underfire.measures.maps import map_l1
from underfire.measures.noise import Kind, noise_level, noisy
from underfire.measures.statistics import bootstrap_mean, paired_difference, rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.adv2.system import DIGITS, EPS
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.adv2.targets import correct
from underfire.reproductions.registry import Outcome, Setting

#: The L1 distances of the authors' talk: between RTS and RTS^A on benign images, and from benign to ADV² images.
PUBLISHED = {"benign, RTS and RTS^A": "0.03", "ADV², RTS": "0.01", "ADV², RTS^A": "0.10"}
#: Steps of the training, images under attack, and images under noise: 3 % of them must be enough for an interval.
SIZES = {"quick": (2, 6, 6), "default": (300, 100, 500), "full": (3000, 1000, 1000)}
NOISE: tuple[tuple[Kind, float], ...] = (("normal", 0.03), ("normal", 0.3), ("uniform", 0.03), ("uniform", 0.3))

_HOW = """Distances are map L1 per pixel; every map explains the class that the classifier predicts. RTS^A is RTS
after further training with `underfire train aid`. ADV² attacks RTS and RTS^A separately; the table has the images on
which the attack succeeded. The noise is so strong that the classifier misclassifies the stated share of {noisy}
images that it classifies correctly without noise. The distance under noise is between the clean and the noisy map of
the misclassified images. Brackets are 95 % BCa bootstrap intervals."""


def run(setting: Setting) -> Outcome:
    """Train RTS^A on the training part of the embedded digits, and compare it with RTS on the test part."""
    steps, images, many = SIZES[setting.scale]
    model = models.load(DIGITS.model(setting), device=setting.device)
    # train
    plain, distilled = RTS(), RTS()
    checkpoint = setting.work / f"aid-{setting.scale}-{setting.seed}.checkpoint"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    distilled.distil(
        model,
        data.load("cluttered-digits:train"),
        steps=steps,
        generator=torch.Generator().manual_seed(setting.seed),
        progress=lambda done, total: setting.progress(done, total, "train RTS^A"),
        checkpoint=checkpoint,
    )
    # compare
    known = correct(model, DIGITS, many, setting).to(setting.device)
    batch = known.take(torch.arange(min(images, len(known)), device=known.y.device))
    found: dict[str, Any] = {"benign, RTS and RTS^A": _benign(model, plain, distilled, batch)}
    for name, method in (("RTS", plain), ("RTS^A", distilled)):
        found[f"ADV², {name}"] = _under_attack(model, method, batch, setting)
    found |= _under_noise(model, plain, distilled, known, setting)
    rows = [
        [
            what,
            show(figures["l1"]),
            *(show(figures[name]) if name in figures else "" for name in ("difference", "success")),
            PUBLISHED.get(what, "plotted"),
        ]
        for what, figures in found.items()
    ]
    return Outcome(
        title="Adversarial interpretation distillation: RTS that notices ADV²",
        source=f"{SOURCE}, sections 5.3 and A2, Figures 15 and 16, and the authors' talk",
        spec={
            "network": DIGITS.network,
            "training": {"steps": steps},
            "images": images,
            "images under noise": many,
            "eps": EPS,
            "seed": setting.seed,
        },
        columns=("maps", "map L1", "RTS^A less RTS, paired", "success of ADV²", "paper"),
        rows=rows,
        notes=[_HOW.format(noisy=many)],
        results=found,
    )


def _benign(model: Classifier, plain: RTS, distilled: RTS, batch: Batch) -> dict[str, Any]:
    """Return the distance between the maps of RTS and of RTS^A on clean images."""
    before, after = (_maps(model, method, batch.x, batch.y) for method in (plain, distilled))
    return {"l1": bootstrap_mean(map_l1(before, after))}


def _under_attack(model: Classifier, method: RTS, batch: Batch, setting: Setting) -> dict[str, Any]:
    """Return the success rate of ADV², and the distance between the clean and the attacked maps of its successes."""
    goal = choose_goal("random-target", model.predict(batch.x), batch, setting.seed)
    assert goal is not None  # the goal is a class
    steps, warm = DIGITS.effort(setting)
    attack: Any = partial(adv2, interpreter=method, eps=EPS, steps=steps, warm_steps=warm)
    parts = torch.arange(len(batch)).split(DIGITS.shard)
    x_adv = torch.cat([attack(model, batch.x[p], batch.y[p], goal=goal[p]) for p in parts])
    fooled = model.predict(x_adv).argmax(1) == goal
    distance = map_l1(_maps(model, method, batch.x, batch.y), _maps(model, method, x_adv, goal))
    return {"l1": bootstrap_mean(distance[fooled]), "success": rate(fooled)}


def _under_noise(model: Classifier, plain: RTS, distilled: RTS, batch: Batch, setting: Setting) -> dict[str, Any]:
    """Return the distances between clean and noisy maps, of RTS and of RTS^A, for every kind and share of noise."""
    found: dict[str, Any] = {}
    for kind, share in NOISE:
        scale = noise_level(model, batch.x, batch.y, share, kind, seed=setting.seed)
        x = noisy(batch.x, scale, kind, torch.Generator(batch.x.device).manual_seed(setting.seed))
        predicted = model.predict(x).argmax(1)
        wrong = predicted != batch.y
        distances: dict[str, Tensor] = {}
        for name, method in (("RTS", plain), ("RTS^A", distilled)):
            before, after = (_maps(model, method, *known) for known in ((batch.x, batch.y), (x, predicted)))
            distances[name] = map_l1(before, after)[wrong]
            what = f"{kind} noise, {share:.0%} wrong, {name}"
            found[what] = {"l1": bootstrap_mean(distances[name]), "scale": scale}
        found[what]["difference"] = paired_difference(distances["RTS^A"], distances["RTS"])
    return found


def _maps(model: Classifier, method: RTS, x: Tensor, y: Tensor) -> Tensor:
    """Return the maps of images for classes, with few images in one pass."""
    parts = zip(x.split(DIGITS.shard), y.split(DIGITS.shard), strict=True)
    return torch.cat([method(model, *part) for part in parts])
