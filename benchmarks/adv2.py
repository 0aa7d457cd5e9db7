"""Measure the cost of attacking an explanation: a step of ADV² over a step of PGD, MobileNet at 224 pixels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import mobilenet
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import Objective, cross_entropy, keep_map
from underfire.ascent.threats import Linf
from underfire.hooks import smooth_relu
from underfire.interpreters import cam, grad_cam, gradient, guided_backprop, integrated_gradients, smooth_grad
from underfire.measures import maps

STEPS, IMAGES = 15, 8


def steps() -> dict[str, Any]:
    """Measure the seconds of `STEPS` steps on each interpreter, and their ratio to those of PGD."""
    model, x, y = mobilenet(IMAGES)
    goal = (y + 1) % 1000

    def attack(objective: Objective) -> None:
        ascend(model, x, y, Recipe(objective, Linf(0.031), step_rule=1 / 255, keep="last"), goal=goal, steps=STEPS)

    def on(interpreter: Callable[..., Tensor]) -> Callable[[], None]:
        objective = cross_entropy(0.05) + 50 * keep_map(interpreter, interpreter(model, x, y))
        return lambda: attack(objective)

    def exact() -> None:
        with smooth_relu(1e-4):
            on_exact()

    on_exact = on(partial(gradient, double_backward="exact"))
    contestants = {
        "PGD": lambda: attack(cross_entropy(0.05)),
        "CAM": on(cam),
        "Grad-CAM": on(grad_cam),
        "GRAD": on(gradient),
        "GRAD, back-propagating twice": exact,
        "guided back-propagation": on(guided_backprop),
        "IG of 8 points": on(partial(integrated_gradients, steps=8)),
        "IG of 8 points, derivative at 2": on(partial(integrated_gradients, steps=8, derivative_steps=2)),
        "SmoothGrad of 8 copies": on(partial(smooth_grad, samples=8)),
        "SmoothGrad of 8 copies, derivative at 4": on(partial(smooth_grad, samples=8, derivative_samples=4)),
    }
    seconds = in_turn(contestants, rounds=3)
    return {
        "images": IMAGES,
        "steps": STEPS,
        "seconds": seconds,
        "step over PGD's": {k: ratio(v, seconds["PGD"]) for k, v in seconds.items() if k != "PGD"},
        "share of the map loss that one step of 0.25/255 takes away": descent(),
    }


def descent() -> dict[str, float]:
    """Return the share of the map loss that one small signed step removes, for two values of `double_backward`.

    The loss is that of the unmodified network, at images that PGD has already moved to another class.
    """
    model, x, y = mobilenet(IMAGES)
    goal = (y + 1) % 1000
    x_adv = ascend(
        model, x, y, Recipe(cross_entropy(0.01), Linf(0.031), step_rule=1 / 255, keep="last"), goal=goal, steps=30
    )
    target = maps.normalise(gradient(model, x, y, pool=4))

    def loss(point: Tensor, double_backward: str) -> Tensor:
        m = maps.normalise(gradient(model, point, goal, pool=4, double_backward=double_backward))
        return (m - target).square().flatten(1).mean(1)

    found, before = {}, loss(x_adv, "finite_difference")
    for name, double_backward, tau in (
        ("finite_difference", "finite_difference", 0.0),
        ("twice, tau 1e-4", "exact", 1e-4),
    ):
        point = x_adv.clone().requires_grad_(True)
        with smooth_relu(tau) if tau else nullcontext():
            (slope,) = torch.autograd.grad(loss(point, double_backward).sum(), point)
        after = loss((x_adv - 0.25 / 255 * slope.sign()).clamp(0, 1), "finite_difference")
        found[name] = float((1 - after / before).mean())
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row with the cost of a step for each interpreter."""
    wanted = {
        "CAM": "≤ 1.15",
        "Grad-CAM": "≤ 2.2",
        "GRAD": "≤ 3.5",
        "guided back-propagation": "≤ 4",
        "IG of 8 points, derivative at 2": "≤ 10",
        "SmoothGrad of 8 copies, derivative at 4": "≤ 10",
    }
    return [
        (
            f"ADV² step on {name}, MobileNet, {found['images']} images, over a PGD step",
            spread(value),
            wanted.get(name, "for comparison"),
        )
        for name, value in found["step over PGD's"].items()
    ]
