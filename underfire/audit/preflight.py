"""Checks before the first cell runs: of the images, the model's logits, and every method on two images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from underfire.audit.labels import check_swapped
from underfire.audit.methods import attack_of, interpreter_of
from underfire.audit.normalisation import check_normalisation
from underfire.audit.schema import key_path
from underfire.audit.target import Target
from underfire.catalog import Card
from underfire.catalog.options import COUNTS
from underfire.classes import listing
from underfire.domains import domain_of
from underfire.errors import DataError, ModelError, SpecError, UnderfireError


@dataclass(frozen=True)
class TrialTimes:
    """Estimates of the time that one cell of each method takes, in seconds, by the label of the method.

    They are the time of a trial with two images, multiplied by the numbers of steps, restarts and samples that the
    trial left out. They are rough, and only tell a run of minutes from one of weeks: more images take longer, the first
    call of a method is slow, and some attacks stop early. `underfire.audit.costs` measures the passes of each cell.
    """

    attacks: Mapping[str, float]
    interpreters: Mapping[str, float]


def preflight(target: Target) -> TrialTimes:
    """Check the images and the model's logits, and try every method of the spec on two images.

    Returns:
        Estimates of the time that the methods take.

    Raises:
        DataError: an image cannot be read, a pixel is outside `[0, 1]`, or a label is not one of the model's classes.
        ModelError: the logits have a wrong shape or are not finite, two classes are swapped, or the model is no better
            than guessing.
        SpecError: a method, with the options of the spec, does not work on this model. A method that needs a gradient
            is no error on a model without one: its cells will state that they could not be run.
    """
    preview = target.preview
    if preview.logits.shape[1] < 2:
        raise ModelError("the model has one class only; an attack needs at least two")
    if (names := target.labels) and len(names) != preview.logits.shape[1]:
        counts = f"the data has {len(names)} class names but the model has {preview.logits.shape[1]} outputs"
        raise DataError(f"{counts}: {listing(names)}; `classes` under `data` names them in the order of the outputs")
    check_swapped(preview.logits, preview.y, target.labels)
    check_normalisation(target)
    _check_accuracy(preview.logits, preview.y)
    interpreters = _try_interpreters(target)
    return TrialTimes(_try_attacks(target), interpreters)


def _check_accuracy(logits: Tensor, y: Tensor) -> None:
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


def _try_interpreters(target: Target) -> dict[str, float]:
    """Try every interpreter, and return the estimated seconds for one cell of each, by its label.

    Where the spec has more samples or steps than the default, the trial has the default number.
    """
    batch, seconds = target.preview.first.to(target.spec.device), dict[str, float]()
    for i, entry in enumerate(target.spec.interpreters):
        method, title = entry.card, entry.title
        short, share = _shortened(method, entry.options, {})
        try:
            method.check_domain(domain_of(target.model).name)
            interpreter = interpreter_of(entry.model_copy(update=short)) if short else target.interpreters[title]
            maps, taken = _timed(interpreter, target.model, batch.x, batch.y)
        except (UnderfireError, RuntimeError) as error:
            if not target.has_gradient and target.refusal(error):
                continue
            if not isinstance(error, UnderfireError):
                raise
            raise SpecError(f"{key_path('interpreters', i)!r} ({title}): {error}") from None
        if maps.dim() != 4 or maps.shape[:2] != (len(batch), 1):
            shape = f"{tuple(maps.shape)}, not [{len(batch)}, 1, h, w]"
            raise SpecError(f"{key_path('interpreters', i)!r} ({title}): its map has the shape {shape}")
        seconds[title] = taken * share
    return seconds


def _try_attacks(target: Target) -> dict[str, float]:
    """Try every attack for one step, and return the estimated seconds for one cell of each, by its label.

    The trial finds options that are wrong together, or for this model.
    """
    spec, batch, seconds = target.spec, target.preview.first.to(target.spec.device), dict[str, float]()
    for i, entry in enumerate(spec.attacks):
        method = entry.card
        short: dict[str, Any] = {name: 1 for name in method.options if name.endswith("steps")}
        if isinstance(restarts := entry.options.get("restarts"), int):
            short["restarts"] = min(restarts, 2)  # some options do not go with restarts
        short, share = _shortened(method, entry.options, short | dict(method.facts.quick))
        goal = None if entry.goal == "untargeted" else (batch.y + 1) % target.preview.logits.shape[1]
        generator = torch.Generator(spec.device).manual_seed(0)
        try:
            method.check_domain(domain_of(target.model).name)
            attack = attack_of(entry, max(entry.eps))
            x_adv, taken = _timed(attack, target.model, batch.x, batch.y, goal=goal, generator=generator, **short)
        except (UnderfireError, RuntimeError) as error:
            if not target.has_gradient and target.refusal(error):
                continue
            if not isinstance(error, UnderfireError):
                raise
            raise SpecError(f"{key_path('attacks', i)!r} ({entry.title}): {error}") from None
        if x_adv.shape != batch.x.shape:
            shape = f"{tuple(x_adv.shape)}, not {tuple(batch.x.shape)}"
            raise SpecError(f"{key_path('attacks', i)!r} ({entry.title}): its images have the shape {shape}")
        seconds[entry.title] = taken * share
    return seconds


def _shortened(method: Card[Any], given: Mapping[str, Any], short: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """Return the options of a short trial run, and the factor by which the whole run takes longer.

    Args:
        method: the card of the method.
        given: the options of the spec.
        short: options that the trial run sets; a count that is above its default is set to its default, too.
    """
    short = dict(short)
    for name in COUNTS:
        default = method.options[name].default if name in method.options else None
        if name not in short and isinstance(default, int) and isinstance(given.get(name), int):
            short |= {name: default} if given[name] > default else {}
    factor = 1.0
    for name, value in short.items():
        whole = given.get(name, method.options[name].default if name in method.options else None)
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in (whole, value))
        factor *= max(1.0, whole / value) if numbers else 1.0
    return short, factor


def _timed(function: Callable[..., Tensor], *values: Any, **options: Any) -> tuple[Tensor, float]:
    """Return the result of a call, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*values, **options)
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result, time.perf_counter() - start
