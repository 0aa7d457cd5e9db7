"""Count what a step of an attack does beside the passes of the network: the operations, and the memory they move.

The network is one linear layer, whose product is not counted. A read or a write of a whole batch, or of several, counts
as so many; smaller tensors only count as operations. The numbers are exact and the same on every machine.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import underfire as uf
from benchmarks.setting import declare_missing_operators
from benchmarks.timing import Row
from underfire.ascent.objectives import cross_entropy

EPS, SIZE = 8 / 255, 2 / 255
#: Operations that move no memory, and the product of the network.
FREE = {"view", "t", "detach", "expand", "unsqueeze", "squeeze", "_unsafe_view", "transpose", "select", "slice"}
FREE |= {"lift_fresh", "permute", "as_strided", "alias", "addmm", "mm"}
SHORT, LONG = 5, 15  # steps; the difference of the two leaves out what an attack does once


class _Traffic(TorchDispatchMode):
    """Count the operations inside the block, and how often they read or write a tensor of `batch` numbers."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.operations, self.moved = batch, 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        if func.overloadpacket.__name__ not in FREE:
            sizes = [t.numel() for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.moved += sum(size for size in sizes if size >= self.batch) / self.batch
        return result


def _attacks(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, dict[str, Callable[[int], object]]]:
    """Return functions of the number of steps: the same attacks in each library, by the name of the attack."""
    declare_missing_operators()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv_lib imports it for plots
    import torchattacks
    from adv_lib import attacks as adv

    pgd: dict[str, Any] = {"eps": EPS, "step_size": SIZE, "objective": cross_entropy()}
    return {
        "PGD": {
            "underfire": lambda steps: uf.attacks.pgd(model, x, y, steps=steps, keep="last", **pgd),
            "underfire, best iterate": lambda steps: uf.attacks.pgd(model, x, y, steps=steps, **pgd),
            "torchattacks": lambda steps: torchattacks.PGD(model, eps=EPS, alpha=SIZE, steps=steps)(x, y),
            "adv_lib": lambda steps: adv.pgd_linf(model, x, y, EPS, steps=steps, absolute_step_size=SIZE),
        },
        "MI-FGSM": {
            "underfire": lambda steps: uf.attacks.mi_fgsm(model, x, y, eps=EPS, steps=steps, objective=cross_entropy()),
            "torchattacks": lambda steps: torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 10, steps=steps)(x, y),
        },
        "DDN": {
            "underfire": lambda steps: uf.attacks.ddn(model, x, y, steps=steps),
            "adv_lib": lambda steps: adv.ddn(model, x, y, steps=steps, levels=None),
        },
        "FMN L2": {
            "underfire": lambda steps: uf.attacks.fmn(model, x, y, steps=steps),
            "adv_lib": lambda steps: adv.fmn(model, x, y, norm=2, steps=steps),
        },
    }


def measure(n: int = 16) -> dict[str, Any]:
    """Return the operations and the reads and writes of the batch in one step of every attack."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(192, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(10, 192, generator=generator) / 14)
    model, x = uf.Classifier(nn.Sequential(nn.Flatten(), layer).eval()), torch.rand(n, 3, 8, 8, generator=generator)
    y = model.predict(x).argmax(1)
    found: dict[str, Any] = {}
    for attack, contestants in _attacks(model, x, y).items():
        for library, run in contestants.items():
            counts = []
            for steps in (SHORT, LONG):
                with _Traffic(x.numel()) as traffic:
                    run(steps)
                counts.append((traffic.operations, traffic.moved))
            operations, moved = ((b - a) / (LONG - SHORT) for a, b in zip(*counts, strict=True))
            found.setdefault(attack, {})[library] = {"operations": operations, "moved": moved}
    return {"images": n, "attacks": found}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return one row for each attack and library."""
    wanted = {"underfire": "≤ the peers'; FMN also projects onto the box", "underfire, best iterate": "no target"}
    return [
        (
            f"{attack}, {library}: reads and writes of the batch in a step, beside the network",
            f"{count['moved']:.1f}; {count['operations']:.0f} operations with the network's",
            wanted.get(library, "the peer"),
        )
        for attack, libraries in found["attacks"].items()
        for library, count in libraries.items()
    ]
