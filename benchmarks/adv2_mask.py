"""Measure ADV² on MASK: the cost of an iteration of the bilevel scheme, and how near the map stays to the clean one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.setting import mobilenet
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire import data, models
from underfire.attacks import adv2, pgd
from underfire.attacks.adv2.scheme import Bilevel
from underfire.interpreters import mask
from underfire.measures.maps import map_l1
from underfire.measures.statistics import bootstrap_mean, rate

ITERATIONS, PGD_STEPS = 1, 4
MANY = 16  # images of the large batch


def iterations() -> dict[str, Any]:
    """Measure the seconds of an iteration on one image and on many, and of a PGD step.

    An iteration is the difference of two runs, one of which has `ITERATIONS` more; MASK itself takes no step.
    """
    model, x, _ = mobilenet(MANY)
    y = model.predict(x).argmax(1)
    goal = (y + 1) % 1000

    def attack(n: int, steps: int) -> None:
        few = partial(mask, variant="adv2_v2", fill="variant", steps=0)
        options: dict[str, Any] = {"goal": goal[:n], "warm_steps": 0, "scheme": Bilevel(reset=ITERATIONS + 1)}
        adv2(model, x[:n], y[:n], interpreter=few, steps=steps, **options)

    def plain(n: int, steps: int) -> None:
        pgd(model, x[:n], y[:n], goal=goal[:n], eps=0.031, steps=steps, random_start=False, keep="last")

    contestants = {
        f"{what}, {n}, {more}": partial(run, n, 1 + more)
        for n in (1, MANY)
        for what, run, count in (("ADV²", attack, ITERATIONS), ("PGD", plain, PGD_STEPS))
        for more in (0, count)
    }
    seconds = in_turn(contestants, rounds=2)

    def one(what: str, n: int, count: int) -> list[float]:
        ends = zip(seconds[f"{what}, {n}, {count}"], seconds[f"{what}, {n}, 0"], strict=True)
        return [(more - few) / count for more, few in ends]

    each = {n: (one("ADV²", n, ITERATIONS), one("PGD", n, PGD_STEPS)) for n in (1, MANY)}
    return {
        "seconds": seconds,
        "iteration over PGD step": {n: ratio(*pair) for n, pair in each.items()},
        "per image": {k: v / MANY for k, v in ratio(each[MANY][0], each[1][0]).items()},
    }


def rows_iterations(found: dict[str, Any]) -> list[Row]:
    """Return rows with the cost of an iteration, and of an image in a large batch."""
    return [
        *(
            (f"ADV² on MASK, MobileNet, {n} images: one iteration over a PGD step", spread(value), "≤ 25")
            for n, value in found["iteration over PGD step"].items()
        ),
        (
            f"ADV² on MASK, MobileNet, time of an image: {MANY} at once over one",
            spread(found["per image"]),
            "≤ 0.6 on 2 cores",
        ),
    ]


def digits(n: int = 8, eps: float = 0.1, steps: int = 100) -> dict[str, Any]:
    """Return success, and map L1 after the whole optimisation of MASK, for PGD and for ADV².

    The images are digits that the network of the package classifies correctly.
    """
    model = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:test", n=2 * n, seed=0)[:]
    right = (model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)[:n]
    x, y = batch.x[right], batch.y[right]
    options: dict[str, Any] = {"goal": (y + 1 + torch.arange(len(y)) % 9) % 10, "eps": eps, "steps": steps}
    attacked = {
        "PGD": pgd(model, x, y, random_start=False, keep="last", **options),
        "ADV²": adv2(model, x, y, interpreter=mask, **options),
    }
    benign = mask(model, x, y)
    found: dict[str, Any] = {"images": len(x), "eps": eps, "steps": steps}
    for name, x_adv in attacked.items():
        shown = mask(model, x_adv, options["goal"])
        found[name] = {
            "success": rate(model.predict(x_adv).argmax(1) == options["goal"]).value,
            "L1": bootstrap_mean(map_l1(benign, shown)).value,
        }
    return found


def rows_digits(found: dict[str, Any]) -> list[Row]:
    """Return rows with the success of ADV², and with its map L1 as a share of PGD's."""
    setting = f"ADV² on MASK, {found['images']} digits, eps {found['eps']:g}, {found['steps']} steps"
    plain, both = found["PGD"], found["ADV²"]
    text = f"{both['L1'] / plain['L1']:.2f} ({both['L1']:.3f} and {plain['L1']:.3f})"
    return [
        (f"{setting}: success", f"{both['success']:.3f}", "≥ 0.9"),
        (f"{setting}: map L1 over that of PGD", text, "≤ 0.4"),
    ]
