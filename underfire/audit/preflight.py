"""Checks before the first cell runs: of the images, the model's logits, and every method on two images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from underfire.ascent.target_maps import benign
from underfire.attacks.adv2.scheme import Bilevel
from underfire.audit.accuracy import check_accuracy
from underfire.audit.fitted_files import opened
from underfire.audit.goals import KINDS
from underfire.audit.labels import check_swapped
from underfire.audit.methods import FALSE_POSITIVES, attack_of, detector_of, interpreter_of, of_batch, values_of
from underfire.audit.normalisation import check_normalisation
from underfire.audit.schema import AttackSpec, DetectorSpec, InterpreterSpec, key_path
from underfire.audit.target import Target
from underfire.audit.trials import Passes, Trials, inner_counts, passes_of_map, tried, value_of
from underfire.classes import class_number, listing
from underfire.domains import domain_of
from underfire.errors import DataError, InputError, ModelError, SpecError, UnderfireError
from underfire.measures.detection import threshold
from underfire.records import Batch


def preflight(target: Target) -> Trials:
    """Check the images and the model's logits, and try every method of the spec on two images.

    Returns:
        The passes of the methods, as the trial runs show them.

    Raises:
        DataError: an image cannot be read, a pixel is outside `[0, 1]`, or a label is not one of the model's classes.
        ModelError: the logits have a wrong shape or are not finite, two classes are swapped, or the model is no better
            than guessing.
        SpecError: a method, with the options of the spec, does not work on this model. A method that needs a gradient
            does not fail on a model without one: its cells will state that they could not be run.
    """
    preview = target.preview
    if preview.logits.shape[1] < 2:
        raise ModelError("the model has one class only; an attack needs at least two")
    if (names := target.labels) and len(names) != preview.logits.shape[1]:
        counts = f"the data has {len(names)} class names but the model has {preview.logits.shape[1]} outputs"
        raise DataError(f"{counts}: {listing(names)}; `classes` under `data` names them in the order of the outputs")
    check_swapped(preview.logits, preview.y, target.labels)
    check_normalisation(target)
    check_accuracy(preview.logits, preview.y)
    interpreters = _try_interpreters(target)
    detectors = _try_detectors(target)
    return Trials(_try_attacks(target), interpreters, detectors)


def _try_interpreters(target: Target) -> dict[str, Passes]:
    """Try every interpreter, and return the passes of each for one image, by its label.

    Where the spec has more samples or steps than the default, the trial has the default number.
    """
    batch, found = target.preview.first.to(target.spec.device), dict[str, Passes]()
    for i, entry in enumerate(target.spec.interpreters):
        with _translated(target, key_path("interpreters", i), entry):
            maps, found[entry.title] = tried(target, entry, _explainer(target, entry, batch))
            if maps.dim() != 4 or maps.shape[:2] != (len(batch), 1):
                shape = f"{tuple(maps.shape)}, not [{len(batch)}, 1, h, w]"
                raise InputError(f"its map has the shape {shape}")
    return found


def _explainer(target: Target, entry: InterpreterSpec, batch: Batch) -> Callable[..., Tensor]:
    """Return a function that explains a batch by an interpreter, some of whose options it takes."""

    def run(**short: Any) -> Tensor:
        chosen = interpreter_of(entry.model_copy(update=short)) if short else target.interpreters.get(entry.title)
        chosen = chosen or interpreter_of(entry)
        return chosen(target.model, batch.x, batch.y)

    return run


def _try_detectors(target: Target) -> dict[str, Passes]:
    """Try every detector, check that its threshold can be chosen, and return the passes of each score, by its label."""
    spec, batch, found = target.spec, target.preview.first.to(target.spec.device), dict[str, Passes]()
    if not spec.detectors:
        return found
    rate = spec.false_positive_rate or FALSE_POSITIVES
    images = len(target.held_out[0]) if any(not entry.file for entry in spec.detectors) else None
    if images is not None and images // 2 < (needed := math.ceil(1 / rate - 1e-9) - 1):
        raise SpecError(
            f"'false_positive_rate' {rate:g} needs {2 * needed} images that are held out, half of them for the "
            f"threshold, and there are {images}; a smaller 'n' of the data or 'held_out' gives more"
        )
    for i, entry in enumerate(spec.detectors):
        with _translated(target, key_path("detectors", i), entry):
            if entry.file:
                detector, calibration = opened(entry, target)
                threshold(calibration.scores, rate)
                _, found[entry.title] = tried(target, entry, partial(detector.score, target.model, batch.x), {})
                continue
            detector = detector_of(entry)
            detector.fit(target.model, *_to_fit(target, detector, supervised=entry.learns_from is not None))
            with TemporaryDirectory() as folder:  # an option may be one that no file can hold
                detector.save(Path(folder) / "detector")
            _, found[entry.title] = tried(target, entry, partial(detector.score, target.model, batch.x), {})
    return found


def _to_fit(target: Target, detector: Any, *, supervised: bool) -> tuple[Batch, Batch | None]:
    """Return the images that the trial of a detector fits it to: clean ones, and for a supervised one as if attacked.

    They are two images, or the held-out ones for a detector that needs more or images of every class. A supervised
    detector that needs no classes gets as few as it needs, with the predicted classes as their labels. The images that
    count as attacked are the same ones with other labels, so that the detector can learn from each of them.
    """
    parts, device = [detector, *getattr(detector, "members", ())], target.spec.device
    first, learn = target.preview.first.to(device), target.held_out_halves[0].to(device)
    needed = max(2, *(getattr(part, "least", 1) for part in parts))
    if not supervised:
        labelled = any(getattr(part, "labelled", False) for part in parts)
        return learn if labelled or needed > len(first) else first, None
    if not any(getattr(part, "least_per_class", 0) for part in parts):
        learn = learn.take(torch.arange(min(len(learn), needed)))
        learn = replace(learn, y=target.logits(learn).argmax(1))
    others = (target.logits(learn).argmax(1) + 1) % target.preview.logits.shape[1]
    return learn, replace(learn, y=others)


def _try_attacks(target: Target) -> dict[str, Passes]:
    """Try every attack for one step, and return the passes of each for one image, by its label.

    The trial finds options that are wrong together, or for this model.
    """
    found = dict[str, Passes]()
    for i, entry in enumerate(target.spec.attacks):
        with _translated(target, key_path("attacks", i), entry):
            _check_goal(target, entry)
            found[entry.title] = try_attack(target, entry, max(entry.eps))
    return found


def _check_goal(target: Target, entry: AttackSpec) -> None:
    """Raise InputError if the goal is not a class of the model, or if it is the label of every image."""
    seen = target.preview
    if entry.goal in KINDS:
        return
    try:
        wanted = class_number(entry.goal, target.model.labels or (), seen.logits.shape[1])
    except InputError as error:
        raise InputError(f"{error}, or {', '.join(KINDS)}") from None
    if bool((seen.y == wanted).all()):
        raise InputError(f"every image already has the class {entry.goal!r}; choose another goal")


def try_attack(target: Target, entry: AttackSpec, eps: float) -> Passes:
    """Try one attack at one size, and return its passes for one image.

    An interpreter that the attack is aimed at has few samples and steps in the trial, because the attack makes its map
    again and again.

    Raises:
        InputError: its images have another shape than those that it gets.
    """
    batch, aim = target.preview.first.to(target.spec.device), entry.interpreter
    goal = None if entry.goal == "untargeted" else (batch.y + 1) % target.preview.logits.shape[1]

    def run(**short: Any) -> Tensor:
        own = {name.removeprefix(_INNER): value for name, value in short.items() if name.startswith(_INNER)}
        changed = entry.model_copy(update={"interpreter": aim.model_copy(update=own)}) if aim and own else entry
        attack = attack_of(changed, eps)
        if of_batch(entry):  # two images may have no image of a third class between them
            attack = partial(attack, target=benign())
        outer = {name: value for name, value in short.items() if not name.startswith(_INNER)}
        generator = torch.Generator(target.spec.device).manual_seed(0)
        x_adv: Tensor = attack(target.model, batch.x, batch.y, goal=goal, generator=generator, **outer)
        return x_adv

    inner = {f"{_INNER}{name}": value for name, value in inner_counts(aim).items()} if aim else {}
    x_adv, passes = tried(target, entry, run, inner=inner)
    if x_adv.shape != batch.x.shape:
        raise InputError(f"its images have the shape {tuple(x_adv.shape)}, not {tuple(batch.x.shape)}")
    if aim and (times := _further_maps(entry, aim)):
        of_map = passes_of_map(target, aim, _explainer(target, aim, batch))
        passes = passes[0] + times * of_map[0], passes[1] + times * of_map[1]
    return passes


_INNER = "interpreter."
"""The beginning of the names of the options of an interpreter among those of an attack."""


def _further_maps(entry: AttackSpec, aim: InterpreterSpec) -> float:
    """Return the number of maps that an attack makes for one image and that its trial does not show.

    They are those of all queries of an attack that asks for maps, and those of the whole optimisations that `adv2` runs
    after every `reset` steps on the image, beyond the one of the trial.
    """
    queries = value_of(entry, "queries")
    if isinstance(queries, int) and queries > 0:
        return queries
    scheme = values_of(entry).get("scheme") or Bilevel()
    steps = value_of(entry, "steps")
    unrolled = aim.card.facts.unrolled is not None and "scheme" in entry.card.options
    return scheme.resets(steps) - 1 if unrolled and scheme.reset > 1 else 0


@contextmanager
def _translated(target: Target, path: str, entry: AttackSpec | InterpreterSpec | DetectorSpec) -> Iterator[None]:
    """Name the entry of the spec in an error of a trial; a model without gradient does not end the trials."""
    try:
        entry.card.check_domain(domain_of(target.model).name)
        yield
    except (UnderfireError, RuntimeError) as error:
        if not target.has_gradient and target.refusal(error):
            return
        if not isinstance(error, UnderfireError):
            raise
        raise SpecError(f"{path!r} ({entry.title}): {error}") from None
