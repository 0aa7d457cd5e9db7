"""Measure how much map loss ADV² on GRAD leaves with each way to differentiate a gradient (`double_backward`)."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import mobilenet
from benchmarks.timing import Row
from underfire import data, models
from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import cross_entropy, keep_map
from underfire.ascent.step_rules import linear
from underfire.ascent.threats import Linf
from underfire.hooks import smooth_relu
from underfire.interpreters import gradient
from underfire.measures import maps
from underfire.model import Classifier

EPS, POOL, WARM_STEPS = 0.031, 4, 15
#: The value of `double_backward`, and the width of the smoothing of ReLU's derivative.
WAYS = {"finite_difference": 0.0, "smooth": 0.0, "exact": 1e-4}
#: Steps of ADV² after the warm start.
STEPS = {"MobileNet photographs": (4,), "digits": (20, 60)}


def measure() -> dict[str, Any]:
    """Measure, on photographs and on the embedded digits, map losses and seconds, from one warm start."""
    digits = data.load("cluttered-digits:test", n=8, seed=0)[:]
    cases = {
        "MobileNet photographs": mobilenet(8),
        "digits": (models.load("zoo:cluttered_digits"), digits.x, digits.y),
    }
    return {name: _compare(*case, STEPS[name]) for name, case in cases.items()}


def _compare(model: Classifier, x: Tensor, y: Tensor, steps: tuple[int, ...]) -> dict[str, Any]:
    """Return the map loss after the warm start, and for each way those after some steps, with the seconds."""
    threat = Linf(EPS)
    goal = model.predict(x).topk(2, dim=1).indices[:, 1]
    first = Recipe(cross_entropy(0.01), threat, step_rule=1 / 255, keep="last")
    warm = ascend(model, x, y, first, goal=goal, steps=WARM_STEPS)
    target = gradient(model, x, model.predict(x).argmax(1), pool=POOL)

    def loss(z: Tensor) -> float:
        pair = (maps.normalise(m) for m in (gradient(model, z, goal, pool=POOL), target))
        return float(torch.sub(*pair).square().mean())

    found: dict[str, Any] = {"images": len(x), "warm start": loss(warm)}
    for way, tau in WAYS.items():
        shown = keep_map(partial(gradient, pool=POOL, double_backward=way), target)
        both = Recipe(cross_entropy(0.01) + 100 * shown, threat, step_rule=linear(2 / 255, 0.1 / 255), keep="last")
        found[way] = {}
        for count in steps:
            start = time.process_time()
            with smooth_relu(tau) if tau else nullcontext():
                x_adv = ascend(model, x, y, both, goal=goal, steps=count, z=warm)
            seconds = time.process_time() - start
            success = float((model.predict(x_adv).argmax(1) == goal).float().mean())
            found[way][str(count)] = {"map loss": loss(x_adv), "success": success, "CPU seconds": seconds}
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row for each set of images and each number of steps."""
    table = []
    for name, case in found.items():
        for count in case["smooth"]:
            shares = [case[way][count]["map loss"] / case["warm start"] for way in WAYS]
            times = [case[way][count]["CPU seconds"] / case["finite_difference"][count]["CPU seconds"] for way in WAYS]
            shown = ", ".join(
                f"{way} {share:.2f} (time × {cost:.1f})" for way, share, cost in zip(WAYS, shares, times, strict=True)
            )
            what = f"ADV² on GRAD, {name}, {case['images']} images: share of the map loss left after {count} steps"
            table.append((what, shown, "for comparison"))
    return table
