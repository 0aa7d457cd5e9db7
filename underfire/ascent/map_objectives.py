"""Objectives that move an explanation away from what it was, and objectives that hold the prediction meanwhile.

`I(x)` is the importance of the pixels: the absolute values of the map, divided by their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from underfire.ascent.objectives import Interpreter, Objective, margin, objective, shown_map
from underfire.ascent.step import Step, succeeded
from underfire.ascent.target_maps import Clean, TargetMap, target_maps
from underfire.errors import InputError
from underfire.measures.arrays import as_map
from underfire.measures.centre import centre_of_mass, importance
from underfire.measures.maps import ranks, resize, top_count
from underfire.validate import check_choice

MapObjective = Literal["top_k", "mass_centre", "target_map"]
_AT_START = 1e-6  # a shift of the centre that counts as none, as a share of the side of the map


def move_map(
    name: MapObjective,
    interpreter: Interpreter | None,
    clean: Clean,
    *,
    target: Tensor | TargetMap | None,
    resized: bool,
    quantile: float,
    generator: Generator,
) -> Objective:
    """Return the objective that moves the explanation, by its name.

    Args:
        name: `"top_k"`, `"mass_centre"` or `"target_map"`: see `leave_top`, `move_centre` and `imitate`.
        interpreter: `(model, x', classes) -> [B, 1, h, w]`; None reads the map that the model answers with.
        clean: the clean images with their maps.
        target: the maps to show instead, for `"target_map"` only; see `target_maps.target_maps`.
        resized: whether target maps of another size are resized.
        quantile: the top pixels of the clean map lie above it, for `"top_k"`.
        generator: source of random targets.

    Raises:
        Unsupported: there is no such objective. InputError: there is no target for `"target_map"`, or one for another,
            or it is wrong.
    """
    check_choice(get_args(MapObjective), objective=name)
    if name == "target_map":
        if target is None:
            raise InputError("objective='target_map' needs target, the map to show instead, such as random_patch()")
        return imitate(interpreter, target_maps(target, clean, resized=resized, generator=generator))
    if target is not None:
        raise InputError(f"objective={name!r} takes no target; use objective='target_map'")
    return leave_top(interpreter, clean.maps, quantile) if name == "top_k" else move_centre(interpreter, clean.maps)


def leave_top(interpreter: Interpreter | None, benign: Tensor, quantile: float = 0.9) -> Objective:
    """Minimise the importance of the pixels that were the most important ones: `D = - sum_{i in B} I(x)_i`.

    Args:
        interpreter: `(model, x', classes) -> [B, 1, h, w]`; None reads the map that the model answers with.
        benign: the maps of the clean images, `[N, 1, h, w]`.
        quantile: `B` are the pixels above this quantile of the benign map's absolute values.

    Source: Ghorbani et al., Interpretation of Neural Networks is Fragile, AAAI 2019, algorithm 1 (top-k).
    """
    before = as_map(benign).abs()
    top = ranks(before) < top_count(before[0].numel() if len(before) else 1, quantile)

    def term(step: Step) -> Tensor:
        share = importance(shown_map(step, interpreter)).flatten(1)
        return -(share * top[step.index]).sum(1)

    return objective(term)


def move_centre(interpreter: Interpreter | None, benign: Tensor) -> Objective:
    """Maximise the shift of the centre of mass, `D = |C(x') - C(x)|`, in shares of the sides of the map.

    The length has no gradient at the clean image itself. There, the direction to the farthest corner of the map is
    used, which is one of its subgradients.

    Source: Ghorbani et al., Interpretation of Neural Networks is Fragile, AAAI 2019, algorithm 1 (mass-centre).
    """
    before = centre_of_mass(benign)
    away = torch.nn.functional.normalize((before < 0.5).to(before.dtype) - before, dim=1)

    def term(step: Step) -> Tensor:
        shift = centre_of_mass(shown_map(step, interpreter)) - before[step.index]
        square = shift.square().sum(1)
        moved = square > _AT_START**2
        return torch.where(moved, torch.where(moved, square, 1).sqrt(), (shift * away[step.index]).sum(1))

    return objective(term)


def imitate(interpreter: Interpreter | None, target: Tensor) -> Objective:
    """Minimise the mean squared difference of the importances from those of the target map, both times `h w`.

    Times `h w`, the mean importance is 1, and the objective does not depend on the size of the map.

    Source: Dombrowski et al., Explanations Can Be Manipulated and Geometry is to Blame, NeurIPS 2019, (2).
    """
    wanted: dict[tuple[int, ...], Tensor] = {}  # the importances of the target, by the size of the map

    def term(step: Step) -> Tensor:
        shown = shown_map(step, interpreter)
        size = shown.shape[2], shown.shape[3]
        if size not in wanted:
            wanted[size] = importance(resize(target.to(shown), size))
        gap = (importance(shown) - wanted[size][step.index]) * (size[0] * size[1])
        return -gap.square().flatten(1).mean(1)

    return objective(term)


def keep_output(logits: Tensor) -> Objective:
    """Minimise the squared difference of the probabilities from those of the clean images, `|p(x') - p(x)|^2`.

    Args:
        logits: the logits of the clean images, `[N, K]`.
    """
    before = logits.detach().softmax(1)
    return objective(lambda step: -(step.logits.softmax(1) - before[step.index]).square().sum(1), logits_only=True)


def margin_up_to(lead: float) -> Objective:
    """Maximise the margin up to `lead`, in logits; beyond it, the prediction adds no gradient."""
    base = margin()
    return objective(lambda step: base(step).clamp(max=lead), logits_only=True)


def once_reached(likeness: Objective, weight: float, lead: float) -> Objective:
    """Maximise the margin of samples without success, and of the others the margin up to `lead` plus the map term.

    The map of a black box is that of the predicted class, so that it says nothing about the goal before the goal is
    reached. At the success, the objective jumps up by about `weight`. It is meant for estimates from values alone.

    Args:
        likeness: the map term, in [-1, 0].
        weight: its weight.
        lead: the margin, in logits, beyond which the prediction adds no gradient.
    """
    base = margin()

    def term(step: Step) -> Tensor:
        ahead = base(step)
        both = ahead.clamp(max=lead) + weight * (1 + likeness(step))
        return torch.where(succeeded(step.logits, step.y, step.goal), both, ahead)

    return objective(term)


def by_map(value: Callable[[], Tensor]) -> Callable[[Step, Tensor], Tensor]:
    """Return a rank of iterates: two successes compete by the value of a map term, two failures by the margin."""
    lag = margin()

    def rank(step: Step, total: Tensor) -> Tensor:
        return torch.where(succeeded(step.logits, step.y, step.goal), value(), lag(step))

    return rank


def remembered(term: Objective) -> tuple[Objective, Callable[[], Tensor]]:
    """Return the objective, and a function that returns its last values, so that no map is computed twice.

    A value that is nan, as that of a map of zeros, is remembered as minus infinity.
    """
    last: list[Tensor] = []

    def remember(step: Step) -> Tensor:
        value = term(step)
        last[:] = [value.detach().nan_to_num(nan=float("-inf"))]
        return value

    return objective(remember), lambda: last[0]
