"""Compare attacks of minimum size at usual settings with foolbox and torchattacks, on ResNet-20 and 256 images."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import underfire as uf
from benchmarks.setting import cifar_resnet20, declare_missing_operators
from benchmarks.timing import Row, clock, in_turn, one_unit, ratio, spread
from underfire.model import Classifier

SPREAD = ("median", "min", "max")
Contestant = Callable[[Classifier, Tensor, Tensor], Tensor]


def _foolbox(attack: Any) -> Contestant:
    """Return an attack of foolbox as a contestant."""

    def run(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        found: Tensor = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=None)[1]
        return found.detach()

    return run


def _compare(n: int, rounds: int, few: int, full: dict[str, Contestant], slow: dict[str, Contestant]) -> dict[str, Any]:
    """Measure units of the whole batch, passes per image, success and median size for each contestant.

    Contestants in `slow` run once on `few` images; their units are scaled to the whole batch.
    """
    model, x, y = cifar_resnet20(n)

    unit = one_unit(model, x, y)

    def evaluate(x_adv: Tensor) -> dict[str, float]:
        rows = slice(0, len(x_adv))
        success = model.predict(x_adv).argmax(1) != y[rows]
        size = uf.measures.l2(x[rows], x_adv).where(success, torch.tensor(float("inf")))
        return {"images": len(x_adv), "success": float(success.float().mean()), "median L2": float(size.median())}

    results: dict[str, Any] = {}
    found: dict[str, Tensor] = {}

    def keep(name: str, contestant: Contestant) -> None:
        found[name] = contestant(model, x, y)

    turns = {name: lambda name=name, contestant=contestant: keep(name, contestant) for name, contestant in full.items()}
    # a unit is short, so the median of several is measured before every contestant
    seconds: dict[str, list[float]] = {name: [] for name in full}
    units: dict[str, list[float]] = {name: [] for name in full}
    unit()
    for _ in range(rounds):
        for name, turn in turns.items():
            units[name].append(statistics.median(in_turn({"unit": unit}, rounds=5)["unit"]))
            start = clock()
            with model.counting() as count:
                turn()
            seconds[name].append(clock() - start)
            passes = {"forwards": count.forwards / n, "backwards": count.backwards / n}
            results[name] = {"passes per image": passes, **evaluate(found[name])}
    for name in full:
        results[name] |= {"seconds": seconds[name], "units": ratio(seconds[name], units[name])}
    # the slow contestants, and the first of the others on their images
    if slow:
        found["first"] = found[next(iter(full))][:few]
        results["the first, on those few"] = evaluate(found["first"])
    for name, contestant in slow.items():
        one = statistics.median(in_turn({"unit": unit}, rounds=5)["unit"])
        start = clock()
        x_adv = contestant(model, x[:few], y[:few]).detach()
        taken = clock() - start
        results[name] = {"seconds": [taken], **evaluate(x_adv), "units": dict.fromkeys(SPREAD, taken / one * n / few)}
    return results


def deepfool(n: int = 256, rounds: int = 3, few: int = 4) -> dict[str, Any]:
    """Compare DeepFool L2, at most 50 steps, overshoot 0.02; torchattacks takes single images, so it gets few."""
    declare_missing_operators()
    import foolbox
    import torchattacks

    return _compare(
        n,
        rounds,
        few,
        {
            "underfire": lambda model, x, y: uf.attacks.deepfool(model, x, y, steps=50),
            "foolbox": _foolbox(foolbox.attacks.L2DeepFoolAttack(steps=50)),
        },
        {"torchattacks": lambda model, x, y: torchattacks.DeepFool(model, steps=50, overshoot=0.02)(x, y)},
    )


def carlini_wagner(n: int = 256, rounds: int = 1) -> dict[str, Any]:
    """Compare C&W L2 with three values of c, at most 200 steps each, first c 1e-3, default step sizes."""
    declare_missing_operators()
    import foolbox

    return _compare(
        n,
        rounds,
        0,
        {
            "underfire": lambda model, x, y: uf.attacks.carlini_wagner(model, x, y, steps=200, binary_search_steps=3),
            "foolbox": _foolbox(foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=3, steps=200)),
        },
        {},
    )


def _rows(setting: str, wanted: str, found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, result in found.items():
        text = f"success {result['success']:.3f}, median L2 {result['median L2']:.4f}"
        if "units" not in result:
            continue
        if passes := result.get("passes per image"):
            text = f"{passes['forwards']:.1f} forwards, {passes['backwards']:.1f} backwards an image; {text}"
        images = result["images"]
        label = f"{setting}, {images} images, {name}: forward+backward units of the whole batch"
        rows.append((label, f"{spread(result['units'], 1)}; {text}", wanted if name == "underfire" else "the peer"))
    return rows


def rows_deepfool(found: dict[str, Any]) -> list[Row]:
    """Return rows with units, passes and sizes."""
    return _rows("DeepFool L2, 50 steps, ResNet-20", "≤ a third of foolbox's units, median no larger", found)


def rows_carlini_wagner(found: dict[str, Any]) -> list[Row]:
    """Return rows with units, passes and sizes."""
    return _rows("C&W L2, 3 x 200 steps, ResNet-20", "≤ foolbox's units, median no larger", found)
