"""Measure what compositions of transfer attacks cost beside their gradients, and DI+TI+MI against a plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import underfire as uf
from benchmarks.setting import cifar_resnet20, mobilenet
from benchmarks.timing import Row, in_turn, one_unit, ratio, spread
from underfire.ascent.objectives import cross_entropy
from underfire.hooks import frozen

EPS, IMAGES, PHOTOGRAPHS = 16 / 255, 16, 2
#: Names with options; the number of gradients of a step is counted. Padded images would be larger than those of a unit.
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "si_ni_ti": {},
    "mi_di_ti": {"keep_size": True},
    "vmi_si": {"samples": 2, "copies": 3},
    "admix_ti_ni": {"copies": 3, "samples": 2},
    "ssm_ti": {"samples": 5},
    "sia_ti": {"samples": 5},
    "bsr_vt": {"bsr_samples": 3, "vt_samples": 2},
    "pgn_si": {"samples": 2, "copies": 2},
    "ops_ti": {"perturbations": 2, "samples": 4},
    "mi_sgm_ti": {},
    "mi_tap": {},
}
#: Those whose views cost most on large images, measured on photographs too.
LARGE = ("ssm_ti", "sia_ti", "bsr_vt")


def compositions() -> dict[str, Any]:
    """Measure the time of a step of every composition, or of some, over that of as many single gradients."""
    results: dict[str, Any] = {}
    for network, (model, x, y) in (("ResNet-20", cifar_resnet20(IMAGES)), ("MobileNet", mobilenet(PHOTOGRAPHS))):
        for name, options in COMPOSITIONS.items():
            if network == "MobileNet" and name not in LARGE:
                continue

            steps = 8 if name.startswith("mi_") else 1

            def attack(name: str = name, options: dict[str, Any] = options, steps: int = steps) -> Tensor:
                result: Tensor = uf.find("attack", name)(model, x, y, eps=EPS, steps=steps, **options)  # noqa: B023
                return result

            with model.counting() as cost:
                attack()
            gradients = cost.backwards // len(x)
            unit = one_unit(model, x, y)
            contestants: dict[str, Callable[[], object]] = {
                "attack": attack,
                "gradients": lambda: [unit() for _ in range(gradients)],  # noqa: B023
            }
            seconds = in_turn(contestants, rounds=2)
            over = ratio(seconds["attack"], seconds["gradients"])
            results[f"{name}, {network}, {len(x)} images"] = {"gradients": gradients, "over": over}
    return results


def rows_compositions(found: dict[str, Any]) -> list[Row]:
    """Return a row for every composition."""
    return [
        (
            f"{name}: time over {result['gradients']} gradients",
            spread(result["over"]),
            "≤ 1.1" if "ResNet" in name else "for comparison",
        )
        for name, result in found.items()
    ]


def plain_di_ti_mi(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    """Run DI+TI+MI for ten steps, as a paper's reader would write it."""
    line = torch.exp(-((torch.arange(15) - 7) ** 2) / (2 * (7 / 3) ** 2))
    kernel = torch.outer(line / line.sum(), line / line.sum()).expand(x.shape[1], 1, 15, 15)
    side, full = x.shape[2], round(x.shape[2] * 330 / 299)
    x_adv, g = x.clone(), torch.zeros_like(x)
    for _ in range(10):
        x_adv.requires_grad_(True)
        seen = x_adv
        if float(torch.rand((), generator=generator)) < 0.5:
            new = int(torch.randint(side, max(full, side + 1), (), generator=generator))
            top, left = (int(torch.randint(0, full - new + 1, (), generator=generator)) for _ in range(2))
            seen = F.pad(F.interpolate(x_adv, (new, new)), (left, full - new - left, top, full - new - top))
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(seen), y, reduction="sum"), x_adv)
        gradient = F.conv2d(gradient, kernel, padding=7, groups=x.shape[1])
        g = g + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x_adv = (x_adv.detach() + EPS / 10 * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return x_adv


def against_plain_loop() -> dict[str, Any]:
    """Measure the time of DI+TI+MI over that of a plain loop with the same draws, and how much their results differ."""
    model, x, y = cifar_resnet20(IMAGES)
    objective = cross_entropy()

    def seeded() -> Generator:
        return torch.Generator().manual_seed(0)

    def plain() -> Tensor:
        with frozen(model):
            return plain_di_ti_mi(model, x, y, seeded())

    def ours() -> Tensor:
        result: Tensor = uf.attacks.mi_di_ti(model, x, y, eps=EPS, objective=objective, generator=seeded())
        return result

    contestants: dict[str, Callable[[], object]] = {"plain": plain, "ours": ours}
    seconds = in_turn(contestants, rounds=5)
    same = float(((plain() - ours()).abs() < EPS / 100).float().mean())
    return {"over": ratio(seconds["ours"], seconds["plain"]), "same": math.floor(1000 * same) / 1000}


def rows_plain_loop(found: dict[str, Any]) -> list[Row]:
    """Return the row of the ratio."""
    what = f"DI+TI+MI, 10 steps, ResNet-20, {IMAGES} images: time over a plain loop with the same gradients"
    return [(what, f"{spread(found['over'], 3)}; {found['same']:.1%} of the values the same", "≤ 1.0")]
