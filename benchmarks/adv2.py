"""Measure the cost of attacking an explanation: a step of ADV² over a step of PGD, MobileNet at 224 pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import mobilenet, photographs
from benchmarks.timing import Row, in_turn, one_unit, ratio, spread
from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import Objective, cross_entropy, keep_map
from underfire.ascent.threats import Linf
from underfire.attacks import adv2
from underfire.interpreters import (
    RTS,
    cam,
    deep_lift,
    full_grad,
    grad_cam,
    gradient,
    guided_backprop,
    integrated_gradients,
    lrp,
    smooth_grad,
)

STEPS, IMAGES = 4, 4


def steps() -> dict[str, Any]:
    """Measure the seconds of a step on each interpreter, over `STEPS` steps, and their ratio to those of PGD."""
    model, x, y = mobilenet(IMAGES)
    goal = (y + 1) % 1000

    def attack(objective: Objective, steps: int) -> None:
        ascend(model, x, y, Recipe(objective, Linf(0.031), step_rule=1 / 255, keep="last"), goal=goal, steps=steps)

    def on(interpreter: Callable[..., Tensor]) -> Callable[[int], None]:
        return partial(attack, cross_entropy(0.05) + 50 * keep_map(interpreter, interpreter(model, x, y)))

    contestants: dict[str, Callable[[int], None]] = {
        "PGD": partial(attack, cross_entropy(0.05)),
        "CAM": on(cam),
        "Grad-CAM": on(grad_cam),
        "GRAD": on(gradient),
        "RTS": on(RTS().fit(model, photographs(2), selector_steps=0, steps=0)),
        "guided back-propagation": on(guided_backprop),
        "LRP": on(lrp),
        "DeepLIFT": on(deep_lift),
        "FullGrad": on(full_grad),
        "IG of 8 points": on(partial(integrated_gradients, steps=8)),
        "IG of 8 points, derivative at 2": on(partial(integrated_gradients, steps=8, derivative_steps=2)),
        "SmoothGrad of 8 copies": on(partial(smooth_grad, samples=8)),
        "SmoothGrad of 8 copies, derivative at 4": on(partial(smooth_grad, samples=8, derivative_samples=4)),
    }
    # what a run does beside its steps is also done in one of a single step
    short, long = ({f"{name}, {n}": partial(run, n) for name, run in contestants.items()} for n in (1, 1 + STEPS))
    taken = in_turn(short | long, rounds=2)
    seconds = {
        name: [(b - a) / STEPS for a, b in zip(taken[f"{name}, 1"], taken[f"{name}, {1 + STEPS}"], strict=True)]
        for name in contestants
    }
    return {
        "images": IMAGES,
        "steps": STEPS,
        "seconds of a step": seconds,
        "step over PGD's": {k: ratio(v, seconds["PGD"]) for k, v in seconds.items() if k != "PGD"},
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row with the cost of a step for each interpreter."""
    wanted = {
        "CAM": "≤ 1.15",
        "Grad-CAM": "≤ 1.15",
        "GRAD": "≤ 2.7",
        "RTS": "≤ 3",
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


def batches() -> dict[str, Any]:
    """Measure the seconds per image of ADV² on Grad-CAM and of bare passes, for one image and for a batch of 16."""
    model, x, y = mobilenet(16)
    goal = (y + 1) % 1000

    def attack(n: int) -> Callable[[], object]:
        options: dict[str, Any] = {"interpreter": grad_cam, "goal": goal[:n], "steps": 3, "warm_steps": 1}
        return lambda: adv2(model, x[:n], y[:n], **options)

    contestants: dict[str, Callable[[], object]] = {
        **{f"adv2, {n}": attack(n) for n in (1, 16)},
        **{f"bare passes, {n}": one_unit(model, x[:n], y[:n]) for n in (1, 16)},
    }
    seconds = in_turn(contestants, rounds=5)
    shares = {
        what: ratio([value / 16 for value in seconds[f"{what}, 16"]], seconds[f"{what}, 1"])
        for what in ("adv2", "bare passes")
    }
    return {
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "time per image, batch of 16 over one image": shares,
    }


def rows_batches(found: dict[str, Any]) -> list[Row]:
    """Return rows with the time per image in a batch, of the attack and of the passes that it cannot do without."""
    name = "time per image, batch of 16 over one image"
    where = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    adv2_share, bare = found[name]["adv2"], found[name]["bare passes"]
    return [
        (f"ADV² on Grad-CAM, MobileNet, {where}: {name}", spread(adv2_share), "≤ 0.6 with two threads"),
        (f"forward and backward pass of MobileNet, {where}: {name}", spread(bare), "for comparison"),
    ]
