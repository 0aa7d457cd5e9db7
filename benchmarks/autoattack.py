"""Compare standard AutoAttack at eps 8/255 on CIFAR-10 with torchattacks at the 100 steps of the standard."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.setting import cifar_resnet20, correct, declare_missing_operators, zoo
from benchmarks.timing import Row, clock, in_turn, one_unit
from underfire.model import Classifier

EPS = 8 / 255


def adversarially_trained(n: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return the adversarially trained `WResnet` and `n` CIFAR-10 test images that it classifies correctly."""
    return correct(zoo("cifar10_wresnet_adv", "interpretability_aware"), n)


def standard(model: nn.Module) -> Any:
    """Build the standard ensemble from parts of torchattacks, whose own `AutoAttack` runs only ten steps of each."""
    declare_missing_operators()
    import torchattacks

    common = {"norm": "Linf", "eps": EPS, "seed": 0, "n_restarts": 1}
    return torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, steps=100, loss="ce", **common),
            torchattacks.APGDT(model, steps=100, n_classes=10, **common),
            torchattacks.FAB(model, steps=100, multi_targeted=True, n_classes=10, **common),
            torchattacks.Square(model, n_queries=5000, **common),
        ]
    )


def undefended(n: int = 128) -> dict[str, Any]:
    """Compare both libraries on ResNet-20."""
    return _compare(*cifar_resnet20(n))


def trained(n: int = 40) -> dict[str, Any]:
    """Compare both libraries on the adversarially trained network."""
    return _compare(*adversarially_trained(n))


def _compare(model: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Run each library once; measure passes, seconds, and the robust accuracy of the returned images."""

    unit = one_unit(model, x, y)
    peer = standard(model)
    contestants = {
        "underfire": lambda: uf.attacks.autoattack(model, x, y, eps=EPS, generator=torch.Generator().manual_seed(0)),
        "torchattacks": lambda: peer(x, y),
    }
    one = in_turn({"unit": unit}, rounds=3)["unit"]
    found: dict[str, dict[str, Any]] = {}
    for name, contestant in contestants.items():
        with model.counting() as count, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = clock()
            x_adv = contestant()
            seconds = clock() - start
        found[name] = {
            "seconds": seconds,
            "units": seconds / sorted(one)[1],
            "forwards per image": count.forwards / len(x),
            "backwards per image": count.backwards / len(x),
            "robust accuracy": float((model.predict(x_adv).argmax(1) == y).float().mean()),
            "within eps": bool(((x_adv - x).abs().flatten(1).amax(1) <= EPS + 1e-6).all()),
        }
    return {
        "images": len(x),
        **found,
        "times faster": found["torchattacks"]["seconds"] / found["underfire"]["seconds"],
    }


def _rows(setting: str, wanted: str, found: dict[str, Any]) -> list[Row]:
    what = f"standard AutoAttack, eps 8/255, {setting}, {found['images']} images"
    rows = [(f"{what}: times faster than torchattacks with 100 steps", f"{found['times faster']:.2f}", wanted)]
    for name in ("underfire", "torchattacks"):
        result = found[name]
        passes = f"{result['forwards per image']:.0f} forwards, {result['backwards per image']:.0f} backwards an image"
        value = f"{result['robust accuracy']:.3f}; {passes}, {result['seconds']:.0f} s"
        rows.append((f"{what}, {name}: robust accuracy", value, "no higher" if name == "underfire" else "the peer"))
    return rows


def rows_undefended(found: dict[str, Any]) -> list[Row]:
    """Return rows with the speed-up and the robust accuracies."""
    return _rows("ResNet-20", "≥ 10", found)


def rows_trained(found: dict[str, Any]) -> list[Row]:
    """Return rows with the speed-up and the robust accuracies."""
    return _rows("adversarially trained WResnet", "≥ 1.5", found)
