"""Checks before the first cell runs: of the images, the model's logits, and every method on two images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from underfire.audit.labels import check_swapped
from underfire.audit.methods import attack_of
from underfire.audit.schema import key_path
from underfire.audit.target import PREVIEWED, Target
from underfire.classes import listing
from underfire.domains import domain_of
from underfire.errors import DataError, ModelError, SpecError, UnderfireError


def preflight(target: Target) -> None:
    """Check the images and the model's logits, and try every method of the spec on two images.

    Raises:
        DataError: an image cannot be read, a pixel is outside `[0, 1]`, or a label is not one of the model's classes.
        ModelError: the logits have a wrong shape or are not finite, two classes are swapped, or the model is no better
            than guessing.
        SpecError: a method, with the options of the spec, does not work on this model. Of a model without a gradient,
            a method that needs one is no error: its cells will state that they could not be run.
    """
    preview = target.preview
    if preview.logits.shape[1] < 2:
        raise ModelError("the model has one class only; an attack needs at least two")
    if (names := target.labels) and len(names) != preview.logits.shape[1]:
        counts = f"the data has {len(names)} class names but the model has {preview.logits.shape[1]} outputs"
        raise DataError(f"{counts}: {listing(names)}; `classes` under `data` names them in the order of the outputs")
    if len(target.data) > PREVIEWED:  # the preview has read the others
        target.data.check()
    if not target.data.by_name:
        check_swapped(preview.logits, preview.y, target.labels)
    _accurate(preview.logits, preview.y)
    _interpreters(target)
    _attacks(target)


def _accurate(logits: Tensor, y: Tensor) -> None:
    """Raise ModelError if the model is no better on the data than guessing: its results would mean nothing."""
    from scipy.stats import binom

    n, classes = logits.shape
    right = int((logits.argmax(1) == y).sum())
    outcome = f"the model gets {right} of {n} images right"
    renamed = _renamed(logits, y)
    if renamed is not None and renamed >= max(n / 2, 2 * right):
        raise ModelError(f"{outcome}, but would get {renamed} with its classes in another order: wrong label order?")
    below = binom.cdf(right, n, 1 / classes) < 0.001
    guessing = n >= 20 and binom.sf(right - 1, n, 1 / classes) > 0.05
    if below or guessing:
        expected = f"guessing among {classes} classes would get {n / classes:.3g}"
        raise ModelError(f"{outcome}, {expected}: wrong normalisation or label order?")


def _renamed(logits: Tensor, y: Tensor) -> int | None:
    """Return how many images are right under the best permutation of the classes; None if there are too few images."""
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    if len(y) < 5 * classes:
        return None
    table = torch.bincount(logits.argmax(1) * classes + y, minlength=classes**2).view(classes, classes).numpy()
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


def _interpreters(target: Target) -> None:
    """Try every interpreter."""
    batch = target.preview.first.to(target.spec.device)
    for i, (title, interpreter) in enumerate(target.interpreters.items()):
        try:
            target.spec.interpreters[i].card.check_domain(domain_of(target.model).name)
            maps = interpreter(target.model, batch.x, batch.y)
        except (UnderfireError, RuntimeError) as error:
            if not target.has_gradient and target.refusal(error):
                continue
            if not isinstance(error, UnderfireError):
                raise
            raise SpecError(f"{key_path('interpreters', i)!r} ({title}): {error}") from None
        if maps.dim() != 4 or maps.shape[:2] != (len(batch), 1):
            shape = f"{tuple(maps.shape)}, not [{len(batch)}, 1, h, w]"
            raise SpecError(f"{key_path('interpreters', i)!r} ({title}): its map has the shape {shape}")


def _attacks(target: Target) -> None:
    """Try every attack for one step; its options may be wrong in combination, or for this model."""
    spec, batch = target.spec, target.preview.first.to(target.spec.device)
    for i, entry in enumerate(spec.attacks):
        method = entry.card
        short: dict[str, Any] = {name: 1 for name in method.options if name.endswith("steps")}
        if isinstance(restarts := entry.options.get("restarts"), int):
            short["restarts"] = min(restarts, 2)  # some options do not go with restarts
        short |= method.facts.quick
        goal = None if entry.goal == "untargeted" else (batch.y + 1) % target.preview.logits.shape[1]
        generator = torch.Generator(spec.device).manual_seed(0)
        try:
            method.check_domain(domain_of(target.model).name)
            attack = attack_of(entry, max(entry.eps))
            x_adv = attack(target.model, batch.x, batch.y, goal=goal, generator=generator, **short)
        except (UnderfireError, RuntimeError) as error:
            if not target.has_gradient and target.refusal(error):
                continue
            if not isinstance(error, UnderfireError):
                raise
            raise SpecError(f"{key_path('attacks', i)!r} ({entry.title}): {error}") from None
        if x_adv.shape != batch.x.shape:
            shape = f"{tuple(x_adv.shape)}, not {tuple(batch.x.shape)}"
            raise SpecError(f"{key_path('attacks', i)!r} ({entry.title}): its images have the shape {shape}")
