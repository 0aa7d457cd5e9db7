"""Attack one image and draw the clean image, the change, and the adversarial image."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.attack_gallery.settings import setting_of
from tools.attack_gallery.subjects import Subject
from underfire.catalog import Card, find
from underfire.errors import UnderfireError
from underfire.figures import heatmap, magnify, save_small, sheet
from underfire.measures import perturbation, prediction
from underfire.measures.maps import normalise

TRIES = 3  # the most images that are attacked until the attack succeeds on one


@dataclass(frozen=True)
class ShownAttack:
    """The result of one attack.

    Attributes:
        card: the attack.
        caption: subject, settings and measurements; or the reason why there is no picture.
        alt: the alternative text of the picture; empty where there is none.
    """

    card: Card
    caption: str
    alt: str = ""


def show(card: Card, available: Mapping[str, Callable[[], Subject]], folder: Path, seed: int) -> ShownAttack:
    """Attack an image, write its picture `NAME.webp` into the folder, and return the result."""
    setting = setting_of(card)
    missing = [n for n, p in card.options.items() if p.default is inspect.Parameter.empty and n not in setting.options]
    if missing:
        return ShownAttack(card, f"Not shown: it needs the options {', '.join(missing)}.")
    reason = "no subject is available"
    for name in setting.on:
        if name not in available:
            continue
        subject = available[name]()
        try:
            x, x_adv, y = _attacked(card, subject, setting.options, seed)
        except UnderfireError as error:
            reason = str(error)
            continue
        return _draw(card, subject, setting.options, x, x_adv, y, folder / f"{card.name}.webp")
    return ShownAttack(card, f"Not shown: {reason}.")


def _attacked(card: Card, subject: Subject, options: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first image on which the attack succeeds, or the last one tried: clean, adversarial, label."""
    universal = card.facts.universal
    tries = 1 if universal else min(TRIES, len(subject.x))
    for i in range(tries):
        rows = slice(None) if universal else slice(i, i + 1)
        x, y = subject.x[rows], subject.y[rows]
        classes = subject.model(x[:1]).shape[1]
        goal = None if "untargeted" in card.facts.goals else (y + classes // 2) % classes
        x_adv = card(subject.model, x, y, goal=goal, generator=torch.Generator().manual_seed(seed), **options).detach()
        fooled = subject.model.predict(x_adv).argmax(1) != y
        if bool(fooled.any()):
            break
    place = int(fooled.float().argmax())
    return x[place], x_adv[place], y[place]


def _draw(
    card: Card, subject: Subject, options: Mapping[str, Any], x: Tensor, x_adv: Tensor, y: Tensor, path: Path
) -> ShownAttack:
    """Write the figure of one attack, and return its caption and alternative text."""
    change, factor = magnify(x, x_adv)
    logits = subject.model.predict(torch.stack([x, x_adv]))
    classes = logits.argmax(1)
    before, after = (
        f"{subject.model.name_of(int(k)).split(',')[0]}, {c:.0%}"
        for k, c in zip(classes, prediction.confidence(logits, classes).tolist(), strict=True)
    )
    rows: list[list[Tensor | None]] = [[x, change, x_adv]]
    alt = f"{card.name}: {before}; the change times {factor:.3g}; afterwards {after}"
    for interpret in _interpreters(options):
        both_maps = interpret(subject.model, torch.stack([x, x_adv]), classes).detach()
        # Min-max normalised, as the attack compares them.
        maps = [heatmap(m, image) for m, image in zip(normalise(both_maps), (x, x_adv), strict=True)]
        rows.append([maps[0], None, maps[1]])
    if len(rows) > 1:
        alt += "; below, the explanation of the prediction before and after"
    titles = [f"clean: {before}", f"change × {factor:.3g}", f"adversarial: {after}"]
    save_small(sheet(rows, column_titles=titles), path)
    settings = ", ".join(f"{name}={_word(value)}" for name, value in options.items())
    sizes = {norm: float(value) for norm, value in perturbation.sizes(x[None], x_adv[None]).items()}
    share = sizes["l0"] / x.numel()
    caption = (
        f"On {subject.name}, {f'with `{settings}`' if settings else 'with its defaults'}. Largest change "
        f"{255 * sizes['linf']:.3g}/255, L2 {sizes['l2']:.3g}, {share:.2%} of the values changed."
    )
    if card.facts.keeps_prediction:
        caption += " The attack does not aim at the prediction."
    elif classes[1] == y:
        caption += " The attack failed."
    return ShownAttack(card, caption, alt)


def _interpreters(options: Mapping[str, Any]) -> list[Callable[..., Tensor]]:
    """Return the interpreters that an attack aims at."""
    named = [find("interpreter", name) for name in options.get("interpreters", ())]
    return [options["interpreter"], *named] if "interpreter" in options else [*named]


def _word(value: Any) -> str:
    """Format the value of an option; a function by its name."""
    while isinstance(value, partial):
        value = value.func
    return getattr(value, "__name__", None) or (f"{value:.3g}" if isinstance(value, float) else str(value))
