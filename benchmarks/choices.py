"""Measure what some defaults were chosen by: the solver of stAdv, the solver of UAP, and EOT beside PGD.

Each is measured on several networks, since what is best on one is not always best on another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import underfire as uf
from benchmarks.networks import NETWORKS
from benchmarks.timing import Row
from underfire.transforms.camera import camera

Measured = dict[str, Any]


def _fooled(model: uf.Classifier, x_adv: Tensor, y: Tensor) -> float:
    return float((model.predict(x_adv).argmax(1) != y).float().mean())


def _timed(model: uf.Classifier, attack: Callable[[], Tensor], n: int) -> tuple[Tensor, Measured]:
    """Return what an attack returns, with its passes per image and the seconds of the processor."""
    start = time.process_time()
    with model.counting() as count:
        x_adv = attack()
    passes = {"forwards": count.forwards / n, "backwards": count.backwards / n}
    return x_adv, {**passes, "seconds": time.process_time() - start}


def st_adv(n: int = 48, steps: int = 50) -> Measured:
    """Compare L-BFGS and Adam at the same number of gradients, eps 1 pixel."""
    found: Measured = {"images": n, "steps": steps, "networks": {}}
    for network in ("mnist_normal", "mnist_adv", "resnet20", "wresnet_adv"):
        model, x, y = NETWORKS[network].setting(n, 0)
        rows = found["networks"][network] = {}
        for solver in ("lbfgs", "adam"):
            x_adv, cost = _timed(model, partial(uf.attacks.st_adv, model, x, y, solver=solver, steps=steps), n)
            change = (x_adv - x).flatten(1).norm(dim=1)
            rows[solver] = {"fooled": _fooled(model, x_adv, y), "median L2": float(change.median()), **cost}
    return found


def universal(n: int = 64) -> Measured:
    """Compare the two solvers of UAP by the share of held-out images that the perturbation fools."""
    found: Measured = {"images": n, "networks": {}}
    for network, eps in (("mnist_normal", 0.15), ("mnist_adv", 0.3), ("resnet20", 10 / 255)):
        model, x, y = NETWORKS[network].setting(n, 0)
        rows: dict[str, Any] = {"eps": eps}
        found["networks"][network] = rows
        for solver in ("deepfool", "sgd"):
            x_adv, cost = _timed(model, partial(uf.attacks.uap, model, x, y, eps=eps, solver=solver), n)
            rows[solver] = {"fooled": _fooled(model, x_adv, y), **cost}
    return found


#: The settings in which EOT and PGD are compared: network, eps in 1/255, whether there is a goal.
PHOTOGRAPHED = [
    *(("resnet20", eps, goal) for eps in (4, 16) for goal in (False, True)),
    *(("wresnet_adv", eps, False) for eps in (4, 16)),
]


def photographed(n: int = 24, steps: int = 20, samples: int = 8, photographs: int = 16) -> Measured:
    """Compare EOT with PGD, judged as a camera sees the images; PGD also gets the passes of EOT."""
    found: Measured = {"images": n, "photographs": photographs, "settings": {}}
    for network, levels, goal in PHOTOGRAPHED:
        model, x, y = NETWORKS[network].setting(n, 0)
        wanted, eps = (y + 1) % 10 if goal else None, levels / 255
        attacks = {
            "eot": partial(uf.attacks.eot, steps=steps, samples=samples),
            "pgd": partial(uf.attacks.pgd, steps=steps),
            "pgd, the passes of eot": partial(uf.attacks.pgd, steps=steps * samples),
        }
        name = f"{'targeted' if goal else 'untargeted'}, eps {levels}/255, {network}"
        rows = found["settings"][name] = {}
        for attack, method in attacks.items():
            x_adv, cost = _timed(model, partial(method, model, x, y, eps=eps, goal=wanted), n)
            shares, generator, photograph = [], torch.Generator().manual_seed(1), camera()
            for _ in range(photographs):
                predicted = model.predict(photograph(x_adv, generator)).argmax(1)
                shares.append(float(((predicted != y) if wanted is None else (predicted == wanted)).float().mean()))
            rows[attack] = {"success in photographs": statistics.mean(shares), **cost}
    return found


def _passes(row: Measured) -> str:
    return f"{row['forwards']:.0f} forwards, {row['backwards']:.0f} backwards an image"


def rows_st_adv(found: Measured) -> list[Row]:
    """Return one row for each network and solver."""
    return [
        (
            f"stAdv, {found['steps']} steps, {network}, {found['images']} images, {solver}: fooled",
            f"{row['fooled']:.3f}; median L2 of the change {row['median L2']:.2f}; {_passes(row)}",
            "the default is the better one",
        )
        for network, solvers in found["networks"].items()
        for solver, row in solvers.items()
    ]


def rows_universal(found: Measured) -> list[Row]:
    """Return one row for each network and solver."""
    return [
        (
            f"UAP, eps {solvers['eps']:.3g}, {network}, {found['images']} images, {solver}: held-out images fooled",
            f"{solvers[solver]['fooled']:.3f}; {_passes(solvers[solver])}; {solvers[solver]['seconds']:.1f} s",
            "the default is the better one",
        )
        for network, solvers in found["networks"].items()
        for solver in ("deepfool", "sgd")
    ]


def rows_photographed(found: Measured) -> list[Row]:
    """Return one row for each setting and attack."""
    return [
        (
            f"{setting}, {found['images']} images, {attack}: success in {found['photographs']} photographs",
            f"{row['success in photographs']:.3f}; {_passes(row)}",
            "no target",
        )
        for setting, attacks in found["settings"].items()
        for attack, row in attacks.items()
    ]
