"""Compare PGD-40 on ResNet-20, 256 images: all steps with a bare loop, until success with torchattacks and foolbox."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.memory import highest, in_own_process
from benchmarks.setting import cifar_resnet20, declare_missing_operators
from benchmarks.timing import Row, in_turn, one_unit, ratio, spread
from underfire.ascent.objectives import cross_entropy
from underfire.hooks import frozen

EPS, STEPS, SIZE = 8 / 255, 40, 2 / 255


def bare(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Run the shortest possible loop: forty times forward, backward, sign and clip, with frozen weights."""
    x_adv, low, high = x.clone(), (x - EPS).clamp_min(0), (x + EPS).clamp_max(1)
    with frozen(model):
        for _ in range(STEPS):
            x_adv.requires_grad_(True)
            loss = nn.functional.cross_entropy(model(x_adv), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = torch.minimum(torch.maximum(x_adv.detach() + SIZE * gradient.sign(), low), high)
    return x_adv


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Run the same attack in underfire; images on which it succeeds stay in the batch."""
    return uf.attacks.pgd(
        model, x, y, eps=EPS, steps=STEPS, step_size=SIZE, objective=cross_entropy(), keep="last", random_start=False
    )


def ours_best(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Run the default of underfire: the margin objective, keeping the best iterate."""
    return uf.attacks.pgd(model, x, y, eps=EPS, steps=STEPS, step_size=SIZE, random_start=False)


VARIANTS = {"bare": bare, "ours": ours, "ours, best iterate": ours_best}


def against_bare_loop() -> dict[str, Any]:
    """Measure the time and the memory of the same forty steps."""
    model, x, y = cifar_resnet20(256)
    same = float((bare(model, x[:64], y[:64]) - ours(model, x[:64], y[:64])).abs().max())
    seconds = in_turn({name: partial(f, model, x, y) for name, f in VARIANTS.items()}, rounds=3)
    memory = {name: in_own_process("benchmarks.pgd", name) for name in VARIANTS}
    return {
        "largest difference of the two results (64 images)": same,
        "seconds": seconds,
        "time": {name: ratio(seconds[name], seconds["bare"]) for name in VARIANTS if name != "bare"},
        "peak MB above start": memory,
        "memory": {name: memory[name] / memory["bare"] for name in VARIANTS if name != "bare"},
    }


def against_peers() -> dict[str, Any]:
    """Compare attacks that stop at success; a unit is one forward and backward pass of the whole batch."""
    declare_missing_operators()
    import foolbox
    import torchattacks

    model, x, y = cifar_resnet20(256)

    unit = one_unit(model, x, y)
    found: dict[str, Tensor] = {}

    def run_ours() -> None:
        generator = torch.Generator().manual_seed(0)
        found["underfire"] = uf.attacks.pgd(
            model, x, y, eps=EPS, steps=STEPS, step_size=SIZE, keep="success", generator=generator
        )

    def run_torchattacks() -> None:
        found["torchattacks"] = torchattacks.PGD(model, eps=EPS, alpha=SIZE, steps=STEPS, random_start=True)(x, y)

    def run_foolbox() -> None:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(abs_stepsize=SIZE, steps=STEPS, random_start=True)
        found["foolbox"] = attack(wrapped, x, y, epsilons=EPS)[1]

    contestants = {"underfire": run_ours, "torchattacks": run_torchattacks, "foolbox": run_foolbox}
    seconds = in_turn({"unit": unit, **contestants}, rounds=3)
    passes = {}
    for name, contestant in contestants.items():
        with model.counting() as count:
            contestant()
        passes[name] = {"forwards": count.forwards / len(x), "backwards": count.backwards / len(x)}
    return {
        "seconds": seconds,
        "units": {name: ratio(seconds[name], seconds["unit"]) for name in contestants},
        "passes per image": passes,
        "robust accuracy": {k: float((model.predict(v).argmax(1) == y).float().mean()) for k, v in found.items()},
        "within eps": {k: bool(((v - x).abs().flatten(1).amax(1) <= EPS + 1e-6).all()) for k, v in found.items()},
    }


def rows_against_bare_loop(found: dict[str, Any]) -> list[Row]:
    """Return rows with time and memory."""
    setting = "PGD-40, all steps, ResNet-20, 256 images"
    rows: list[Row] = []
    for name, label in (("ours", ""), ("ours, best iterate", ", keeping the best iterate")):
        rows.append((f"{setting}{label}: time over a bare loop", spread(found["time"][name], 3), "≤ 1.02"))
        rows.append((f"{setting}{label}: memory over a bare loop", f"{found['memory'][name]:.2f}", "≤ 1.2"))
    return rows


def rows_against_peers(found: dict[str, Any]) -> list[Row]:
    """Return rows with units, passes and robust accuracy."""
    rows: list[Row] = []
    for name, units in found["units"].items():
        passes, accuracy = found["passes per image"][name], found["robust accuracy"][name]
        counts = f"{passes['forwards']:.1f} forwards, {passes['backwards']:.1f} backwards an image"
        what = f"PGD-40 until success, ResNet-20, 256 images, {name}: forward+backward units"
        want = "≤ 6" if name == "underfire" else "the peer"
        rows.append((what, f"{spread(units)}; {counts}; robust accuracy {accuracy:.3f}", want))
    return rows


if __name__ == "__main__":
    network, images, labels = cifar_resnet20(256)
    attack = VARIANTS[sys.argv[1]]
    attack(network, images[:2], labels[:2])  # warm-up
    print(highest(lambda: attack(network, images, labels)))
