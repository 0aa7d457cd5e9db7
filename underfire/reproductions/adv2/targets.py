"""Attack systems towards maps that have nothing to do with the image, a random patch or another class (section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire import data, models
from underfire.ascent.target_maps import Clean, TargetMap, target_maps
from underfire.attacks import adv2, pgd
from underfire.audit.goals import choose_goal
from underfire.catalog import find
from underfire.measures.maps import map_iou, map_l1
from underfire.measures.statistics import bootstrap_mean, rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.adv2.system import CIFAR10, DIGITS, EPS, MOBILENET, System
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.registry import Outcome, Setting

SYSTEMS = {"cluttered digits": DIGITS, "ResNet-56": CIFAR10, "MobileNet v1": MOBILENET}
IMAGES = {"cluttered digits": 40, "ResNet-56": 32, "MobileNet v1": 16}
COLUMNS = ("network", "maps of", "success", "confidence", "L1 to the target", "of PGD", "IoU with the target", "of PGD")

_HOW = """Every image has a random other class as its goal and a random map as its target. PGD, which ignores maps, is
compared with the same target. Brackets are 95 % intervals: Clopper-Pearson for success, BCa bootstrap for means. Maps
are min-max normalised. The IoU is that of the brightest pixels: as many as the patch has, or the top 20 % for the map
of another class."""


def towards(rule: TargetMap, setting: Setting, *, title: str, source: str, notes: list[str]) -> Outcome:
    """Attack every system towards the maps that a rule makes, and measure how near the maps come."""
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    chosen = {name: one.at(setting) for name, one in list(SYSTEMS.items())[: 1 if setting.quick else None]}
    for name, system in chosen.items():
        results[name] = _system(name, system, rule, setting)
        for label, found in results[name].items():
            cells = [found["success"], found["confidence"]]
            cells += [found[measure][attack] for measure in ("l1", "iou") for attack in ("ADV²", "PGD")]
            rows.append([name, label, *map(show, cells)])
    return Outcome(
        title=title,
        source=f"{SOURCE}, {source}",
        spec={
            "systems": {
                name: {"network": s.network, "data": s.data, "maps": list(s.aims), "images": IMAGES[name]}
                for name, s in chosen.items()
            },
            "eps": EPS,
            "seed": setting.seed,
        },
        columns=COLUMNS,
        rows=rows,
        notes=[_HOW, *notes],
        results=results,
    )


def _system(name: str, system: System, rule: TargetMap, setting: Setting) -> dict[str, Any]:
    """Attack the maps of every interpreter of a system; return its figures by interpreter."""
    model = models.load(system.model(setting), device=setting.device)
    batch = correct(model, system, 3 if setting.quick else IMAGES[name], setting).to(setting.device)
    logits = model.predict(batch.x, chunk=system.shard)
    goal = choose_goal("random-target", logits, batch, setting.seed)
    assert goal is not None  # the goal is a class
    parts = torch.arange(len(batch)).split(system.shard)
    plain = partial(pgd, eps=EPS, steps=sum(system.effort(setting)), step_size=1 / 255, random_start=False, keep="last")
    x_pgd = torch.cat([plain(model, batch.x[p], batch.y[p], goal=goal[p]) for p in parts])
    found: dict[str, Any] = {}
    for number, (label, aim) in enumerate(system.aims.items()):
        setting.progress(number, len(system.aims), f"{name}: {label}")
        interpreter: Any = find("interpreter", aim.name).with_options(**aim.options)
        generator = torch.Generator(batch.x.device).manual_seed(setting.seed)

        def maps(x: Tensor, classes: Tensor, interpreter: Any = interpreter) -> Tensor:
            return torch.cat([interpreter(model, x[p], classes[p]) for p in parts])

        benign = maps(batch.x, batch.y)
        target = target_maps(rule, Clean(benign, batch.y, goal), resized=False, generator=generator)
        steps, warm = system.effort(setting, aim)
        attack: Any = partial(adv2, interpreter=interpreter, eps=EPS, steps=steps, warm_steps=warm)
        x_adv = torch.cat([attack(model, batch.x[p], batch.y[p], goal=goal[p], target=target[p]) for p in parts])
        found[label] = _figures(model, goal, target, {"PGD": x_pgd, "ADV²": x_adv}, maps)
    return found


def _figures(
    model: Classifier, goal: Tensor, target: Tensor, attacked: Mapping[str, Tensor], maps: Any
) -> dict[str, Any]:
    """Return the outcome of ADV², and the distances of the maps after each attack from the target maps."""
    probability = model.predict(attacked["ADV²"], chunk=16).softmax(1)
    fooled = probability.argmax(1) == goal
    figures: dict[str, Any] = {
        "success": rate(fooled),
        "confidence": bootstrap_mean(probability.gather(1, goal[:, None]).squeeze(1)[fooled]),
        "l1": {},
        "iou": {},
    }
    for name, x_adv in attacked.items():
        m = maps(x_adv, goal)
        figures["l1"][name] = bootstrap_mean(map_l1(target, m))
        figures["iou"][name] = bootstrap_mean(_iou(target, m))
    return figures


def _iou(target: Tensor, maps: Tensor) -> Tensor:
    """Return the IoU of the brightest pixels of each pair of maps, `[B]`; of a patch, as many as it has."""
    patches = bool(((target == 0) | (target == 1)).all())
    pairs = zip(target.split(1), maps.split(1), strict=True)
    return torch.cat([map_iou(t, m, quantile=1 - float(t.mean()) if patches else 0.8) for t, m in pairs])


def correct(model: Classifier, system: System, n: int, setting: Setting) -> Batch:
    """Return the first `n` images of a random order that the model classifies correctly."""
    source = data.load(system.images_of(setting))
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(setting.seed))
    kept: list[int] = []
    for rows in order.split(50):
        batch = source[rows].to(setting.device)
        kept += rows[(model.predict(batch.x, chunk=50).argmax(1) == batch.y).cpu()].tolist()
        if len(kept) >= n:
            break
    return source[kept[:n]]
