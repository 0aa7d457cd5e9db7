"""Run folders made by hand: every number in them follows from the rules below, so that a report has known answers.

Sample `i` of `n` falls to an attack of strength `s` at size `eps` when `i / n < s * eps / top`, `top` being the largest
size of its norm; the last 5 % of the samples are misclassified already without any attack. A map that an attack aims at
keeps an IoU of 0.9 or 0.95 in turn, any other one 0.25, 0.35 or 0.45.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from underfire.audit.graph import Cell
from underfire.audit.kinds import KINDS
from underfire.audit.ledger import Ledger, write_head
from underfire.audit.result import Result
from underfire.audit.schema import MEASURES
from underfire.audit.store import Store
from underfire.data.digits import scans

CHECKS: tuple[tuple[str, bool, float, float, str], ...] = (
    ("more_steps", True, 0.0, 0.02, "80 steps fool no fewer images than 40."),
    ("larger_eps", True, 0.0, 0.0, "A larger eps never fools fewer images."),
    ("unbounded_eps", True, 1.0, 1.0, "With eps 1 every image is fooled."),
    ("beats_noise", True, 0.93, 0.05, "Random noise of the same size fools 5 % of the images, the attack 98 %."),
    ("beats_black_box", True, 0.41, 0.0, "An attack that only queries the model fools fewer images."),
    ("gradients", True, 0.0, 0.0, "No gradient is zero or not a number."),
    ("restarts", False, 0.07, 0.05, "Five random restarts fool 7 % more images than one: raise the restarts."),
)
RIVALS = {"beats_noise": "random noise", "beats_black_box": "NES"}


@dataclass(frozen=True)
class Attack:
    """One entry of the made-up audit."""

    label: str
    attack: str
    norm: str
    sizes: tuple[float, ...]
    strength: float
    attacked: str = ""
    targeted: bool = False


ATTACKS = (
    Attack("fgsm linf", "fgsm", "linf", (2 / 255, 4 / 255, 8 / 255), 0.62),
    Attack("pgd linf", "pgd", "linf", (2 / 255, 4 / 255, 8 / 255), 0.93),
    Attack("mi_fgsm linf", "mi_fgsm", "linf", (2 / 255, 4 / 255, 8 / 255), 0.85),
    Attack("adv2 grad_cam", "adv2", "linf", (8 / 255,), 0.9, attacked="grad_cam", targeted=True),
    Attack("pgd l2", "pgd", "l2", (0.25, 0.5, 1.0), 0.8),
)
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def images(count: int, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Handwritten digits at random places of a canvas: images, classes and where the digit lies."""
    digits, found = scans()
    random = torch.Generator().manual_seed(3)
    x, where = torch.zeros(count, 1, side, side), torch.zeros(count, 1, side, side)
    for i in range(count):
        digit = interpolate(digits[i : i + 1], scale_factor=3.0, mode="bilinear")
        top, left = torch.randint(0, side - 24, (2,), generator=random).tolist()
        x[i, :, top : top + 24, left : left + 24] = digit[0]
        where[i, :, top : top + 24, left : left + 24] = 1
    return x, found[:count], where


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ledger]:
    """Opens a run folder that was made with the options of `write`; none of the tests changes it."""
    made: dict[str, Path] = {}

    def opened(**options: Any) -> Ledger:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = write(tmp_path_factory.mktemp("synthetic") / "run", **options)
        return Ledger(made[key])

    return opened


def write(
    folder: Path,
    *,
    n: int = 100,
    attacks: Sequence[str] = tuple(attack.label for attack in ATTACKS),
    interpreters: Sequence[str] = ("gradient", "grad_cam"),
    gallery: int = 4,
    stored: Sequence[int] | None = None,
    masks: bool = True,
    labels: Sequence[str] | None = LABELS,
    checks: Sequence[tuple[str, bool, float, float, str]] = CHECKS,
    gates: Sequence[dict[str, Any]] = (),
    measures: Sequence[str] = MEASURES,
    missing: int = 0,
    rival_share: float = 0.04,
) -> Path:
    """Write the run folder and return it; the last `missing` attacks and checks are left out, as a killed run would."""
    stored = range(gallery) if stored is None else stored  # the samples whose pictures the run has
    x, y, where = images(max(len(stored), 1))
    classes = [int(y[i % len(y)]) for i in range(n)]
    right = [i < round(0.95 * n) for i in range(n)]
    clean, result = Cell("clean", {}), Result()
    pred = [c if ok else (c + 1) % 10 for c, ok in zip(classes, right, strict=True)]
    result.add(n, id=[f"s{i}" for i in range(n)], y=classes, pred=pred, conf=0.97)
    groups: list[list[tuple[Cell, Result]]] = [[(clean, result)]]
    chosen = [attack for attack in ATTACKS if attack.label in attacks]
    for attack in chosen:
        for eps in attack.sizes:
            craft = _craft(attack, eps, clean, classes)
            groups.append([craft, *(_maps(attack, name, craft, masks, measures) for name in interpreters)])
            if gallery:
                groups[-1].append(_gallery(attack, eps, craft[0], x, where, interpreters, stored))
    if checks:
        result = Result()
        names = ("name", "passed", "value", "limit", "detail")
        for check in checks:
            rival = RIVALS.get(check[0])
            result.add(1, **dict(zip(names, check, strict=True)), rival=rival or "")
            result.add(1, hits=round(50 * rival_share) if rival else None, images=50 if rival else None)
        groups.append([(Cell("masking", {}, about={"label": "pgd linf", "norm": "linf", "eps": 4 / 255}), result)])
    spec = {
        "model": {"uri": "zoo:cluttered_digits"},
        "data": {"uri": "cluttered-digits:test", "n": n},
        "attacks": [_entry(attack) for attack in chosen],
        "interpreters": [{"name": name} for name in interpreters],
        "measures": [{"name": name} for name in measures],
        "gates": list(gates),
        "masking": bool(checks),
        "gallery": gallery,
    }
    store = Store(folder)
    planned = [cell.as_dict() for group in groups for cell, _ in group]
    head = {"underfire": "0.1.0", "spec": spec, "environment": environment(labels, n), "cells": planned}
    write_head(store, head)
    for group in groups[: len(groups) - missing]:
        for cell, result in group:
            result.write(store, cell, KINDS[cell.kind].schema)
    return folder


def environment(labels: Sequence[str] | None, n: int) -> dict[str, Any]:
    """What a run writes down about where it ran."""
    where = {
        "underfire": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0",
        "platform": "Linux-6.1-x86_64",
        "cores": 2,
        "device": "cpu",
    }
    return {**where, "started": "2026-11-21T03:00:00+00:00", "images": n, "labels": list(labels) if labels else None}


def _entry(attack: Attack) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": attack.attack,
        "label": attack.label,
        "norm": attack.norm,
        "eps": list(attack.sizes),
    }
    if attack.targeted:
        entry["goal"] = "random-target"
    if attack.attacked:
        entry["interpreter"] = {"name": attack.attacked}
    return entry


def _craft(attack: Attack, eps: float, clean: Cell, classes: list[int]) -> tuple[Cell, Result]:
    n, top, result = len(classes), max(attack.sizes), Result()
    about = {"clean": clean.key, "attack": attack.attack, "label": attack.label, "norm": attack.norm, "seed": 0}
    about |= {"targeted": attack.targeted, "attacked": attack.attacked, "params": json.dumps({"steps": 40})}
    for i, c in enumerate(classes):
        won = i / n < attack.strength * eps / top
        moved = {"pred_adv": (c + 3) % 10 if won else c, "conf_adv": 0.91 if won else 0.6, "success": won}
        sizes = {"linf": min(eps, 1.0), "l2": 12 * eps, "l1": 400 * eps, "l0": 4096.0}
        cost = {"forwards": 40.0, "backwards": 40.0, "seconds": 0.02}
        goal = (c + 3) % 10 if attack.targeted else -1
        result.add(1, id=f"s{i}", eps=eps, goal=goal, in_box=True, within_eps=True, **moved, **sizes, **cost)
    return Cell("craft", {"label": attack.label, "eps": eps}, {"clean": clean}, about), result


def _maps(
    attack: Attack, interpreter: str, craft: tuple[Cell, Result], masks: bool, measures: Sequence[str]
) -> tuple[Cell, Result]:
    cell, result = craft[0], Result()
    for i, name in enumerate(craft[1].table["id"]):
        kept = attack.attacked == interpreter
        near = 0.9 + 0.05 * (i % 2) if kept else 0.25 + 0.1 * (i % 3)
        values = {
            "map_iou": (nan, near),
            "map_l1": (nan, (1 - near) / 3),
            "map_l2": (nan, (1 - near) / 6),
            "mass_inside": (0.8, 0.3 + 0.5 * near) if masks else (nan, nan),
            "insertion": (0.7, 0.4),
        }
        for measure in dict.fromkeys([*measures, "map_iou", "map_l1"]):
            clean, value = values[measure]
            result.add(1, id=name, eps=craft[1].table["eps"][i], measure=measure, clean=clean, value=value)
    about = {"craft": cell.key, "label": attack.label, "seed": 0, "interpreter": interpreter}
    return Cell("measure", {"interpreter": interpreter}, {"craft": cell}, about), result


def _gallery(
    attack: Attack,
    eps: float,
    craft: Cell,
    x: Tensor,
    where: Tensor,
    interpreters: Sequence[str],
    stored: Sequence[int],
) -> tuple[Cell, Result]:
    random = torch.Generator().manual_seed(len(attack.label))
    noise = (torch.randint(0, 2, x.shape, generator=random) * 2.0 - 1.0) * min(eps, 8 / 255)
    tensors = {"x": x, "x_adv": (x + noise).clamp(0, 1)}
    for i, interpreter in enumerate(interpreters):
        shape = (8, 8) if interpreter == "grad_cam" else (64, 64)
        benign = interpolate(where, shape, mode="area") + 0.1 * torch.rand(len(x), 1, *shape, generator=random)
        other = torch.rand(len(x), 1, *shape, generator=random) + 0.8 * benign.roll(3, -1)
        tensors[f"map_clean.{i}"] = benign
        tensors[f"map_adv.{i}"] = benign * 0.95 if attack.attacked == interpreter else other
    result = Result(arrays=tensors)
    result.add(len(x), id=[f"s{i}" for i in stored])
    return Cell("gallery", {}, {"craft": craft}, {"craft": craft.key, "interpreters": list(interpreters)}), result
