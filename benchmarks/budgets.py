"""The attacks of minimum size of underfire and of adv_lib, with settings that spend a budget of propagations."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.setting import declare_missing_operators
from underfire.ascent.nearest import Nearest
from underfire.domains import domain_of

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0, "l0": 0.0}
#: The number of sizes at which an attack of fixed size is run, between 0 and twice the first.
ROUNDS = 10


def bisected(attack: Callable[..., Tensor], norm: str, first: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the nearest success of an attack of fixed size, by bisection of the size for every image separately."""
    nearest = Nearest(x, norm, domain=domain_of(model))
    low, eps = torch.zeros(len(x)), torch.full((len(x),), first)
    high = 2 * eps
    for _ in range(ROUNDS):
        x_adv = attack(model, x, y, norm=norm, eps=eps)
        with torch.no_grad():
            success = model(x_adv).argmax(1) != y
        nearest.update(x_adv, success)
        low, high = torch.where(success, low, eps), torch.where(success, nearest.size.minimum(high), high)
        eps = (low + high) / 2
    return nearest.x_adv


def ours(norm: str, budget: int, first: float | None) -> dict[str, Attack]:
    """Return the attacks of underfire for a norm, with settings that spend the budget.

    Args:
        first: the first size of attacks of fixed size; None leaves them out.
    """
    attacks = {card.name: card for card in uf.cards("attack")}
    passes = budget // 2 - 1  # steps of one forward and one backward pass; two forward passes before and after them
    settings: dict[str, dict[str, Any]] = {
        "fmn": {"steps": passes},
        "ddn": {"steps": passes},
        # without aborting early, which would not use most of the budget; the steps of a run were found by experiment
        "carlini_wagner": {"steps": passes // {"l2": 9, "linf": 22, "l0": 30}.get(norm, 1), "abort_early": False},
        "ead": {"steps": budget // 3 // 9, "rule": "L1", "abort_early": False},
        "fab": {"steps": budget // 11 - 1},
        "sigma_zero": {"steps": passes},
        "deepfool": {"steps": 50},
    }
    found: dict[str, Attack] = {}
    for name, options in settings.items():
        if name in attacks and norm in attacks[name].facts.norms:
            found[name] = partial(attacks[name].function, norm=norm, **options)
    if norm == "l1":
        found["ead, abort_early"] = partial(attacks["ead"].function, **settings["ead"] | {"abort_early": True})
    if first is not None and norm in attacks["apgd"].facts.norms:
        generator = torch.Generator().manual_seed(torch.initial_seed())
        steps = budget // 2 // ROUNDS - 2
        once = partial(attacks["apgd"].function, steps=steps, objective="dlr", keep="success", generator=generator)
        found["apgd"] = partial(bisected, once, norm, first)
    return found


def theirs(norm: str, budget: int, first: float | None) -> dict[str, Attack]:
    """Return the attacks of adv_lib for a norm, with settings that spend the budget; see `ours`."""
    declare_missing_operators()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv_lib imports it for plots
    from adv_lib import attacks as adv
    from adv_lib.attacks.auto_pgd import minimal_apgd

    order, passes = ORDERS[norm], budget // 2
    bounded = {"max_eps": first, "binary_search_steps": ROUNDS, "n_iter": passes // ROUNDS - 2}
    everywhere: dict[str, Attack] = {
        "fmn": partial(adv.fmn, norm=order, steps=passes),
        "pdpgd": partial(adv.pdpgd, norm=order, num_steps=passes),
    }
    by_norm: dict[str, dict[str, Attack]] = {
        "l2": {
            "ddn": partial(adv.ddn, steps=passes, levels=None),
            "carlini_wagner": partial(adv.carlini_wagner_l2, binary_search_steps=9, max_iterations=passes // 9),
            "alma": partial(adv.alma, distance="l2", num_steps=passes, init_lr_distance=1),
            "deepfool": partial(adv.df, norm=2, steps=50),
            "superdeepfool": adv.sdf,
        },
        "linf": {
            "carlini_wagner": partial(adv.carlini_wagner_linf, max_iterations=passes // 22),
            "deepfool": partial(adv.df, norm=order, steps=50),
        },
        "l1": {"alma": partial(adv.alma, distance="l1", num_steps=passes, init_lr_distance=0.5)},
        "l0": {"sigma_zero": partial(adv.sigma_zero, num_steps=passes), "vfga": partial(adv.vfga, targeted=False)},
    }
    found = everywhere | by_norm[norm]
    if first is not None:
        found["apgd"] = partial(minimal_apgd, norm=order, **bounded)
        found["fab"] = partial(adv.fab, norm=order, n_iter=budget // 11 - 1)
    return found


LIBRARIES = {"underfire": ours, "adv_lib": theirs}
