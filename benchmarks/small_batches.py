"""Compare short attacks on ResNet-32 with other libraries, for batches of 1, 16 and 64 images, in processor time.

A unit is one forward and one backward pass of the batch with frozen weights. Processor time does not count what other
programs on the machine do.
"""

from __future__ import annotations

import statistics
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.setting import correct, declare_missing_operators, zoo
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.ascent.objectives import cross_entropy
from underfire.hooks import frozen

EPS, SIZE = 8 / 255, 2 / 255
#: The batches, with the number of rounds.
BATCHES = {1: 5, 16: 2, 64: 1}
Contestants = dict[str, Callable[[], object]]


def _contestants(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Contestants]:
    """Return the same attacks in each library, by the name of the attack."""
    declare_missing_operators()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv_lib imports it for plots
    import torchattacks
    from adv_lib import attacks as adv

    pgd: dict[str, Any] = {"eps": EPS, "steps": 20, "step_size": SIZE, "objective": cross_entropy()}
    return {
        "PGD 20": {
            "underfire": lambda: uf.attacks.pgd(model, x, y, keep="last", **pgd),
            "underfire, best iterate": lambda: uf.attacks.pgd(model, x, y, **pgd),
            "torchattacks": lambda: torchattacks.PGD(model, eps=EPS, alpha=SIZE, steps=20)(x, y),
            "adv_lib": lambda: adv.pgd_linf(model, x, y, EPS, steps=20, absolute_step_size=SIZE),
        },
        "MI-FGSM 10": {
            "underfire": lambda: uf.attacks.mi_fgsm(model, x, y, eps=EPS, steps=10, objective=cross_entropy()),
            "torchattacks": lambda: torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 10, steps=10)(x, y),
        },
        "FMN L2 20": {
            "underfire": lambda: uf.attacks.fmn(model, x, y, steps=20),
            "adv_lib": lambda: adv.fmn(model, x, y, norm=2, steps=20),
        },
    }


def against_peers() -> dict[str, Any]:
    """Measure the units of every attack, and the ratio of ours to the fastest peer."""
    network = zoo("resnet32_cifar10")
    results: dict[str, Any] = {}
    for n, rounds in BATCHES.items():
        model, x, y = correct(network, n)

        def unit(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            with frozen(model):
                for _ in range(5):
                    point = x.clone().requires_grad_(True)
                    torch.autograd.grad(nn.functional.cross_entropy(model(point), y, reduction="sum"), point)

        for attack, contestants in _contestants(model, x, y).items():
            seconds = in_turn({"unit": unit, **contestants}, rounds=rounds)
            peers = [name for name in contestants if not name.startswith("underfire")]
            fastest = min(peers, key=lambda name: statistics.median(seconds[name]))
            one = [taken / 5 for taken in seconds.pop("unit")]
            results[f"{attack}, {n} images"] = {
                "units": {name: ratio(taken, one) for name, taken in seconds.items()},
                "fastest peer": fastest,
                "over the fastest peer": ratio(seconds["underfire"], seconds[fastest]),
            }
    return results


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the units of all, and with the ratio."""
    table: list[Row] = []
    for name, result in found.items():
        for contestant, units in result["units"].items():
            ours = contestant == "underfire"
            over = f"; {spread(result['over the fastest peer'], 3)} × {result['fastest peer']}" if ours else ""
            want = "≤ 1.0 × the fastest peer" if ours else "no target" if "underfire" in contestant else "the peer"
            table.append((f"{name}, ResNet-32, {contestant}: forward+backward units", f"{spread(units)}{over}", want))
    return table
