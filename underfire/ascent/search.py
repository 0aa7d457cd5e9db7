"""Search the parameters of a transformation by a grid, at random, or along the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import margin
from underfire.ascent.parametric import ParametricThreat
from underfire.ascent.step import Best, Targets, succeeded
from underfire.domains import check_inputs
from underfire.errors import Unsupported
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_classes, default_generator

Search = Literal["grid", "random", "gradient"]


def worst_of(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ParametricThreat,
    candidates: Tensor,
    *,
    goal: Tensor | None = None,
    keep: Keep = "success",
    chunk: int = 256,
) -> Tensor:
    """Return every image under its worst candidate parameters: a success if there is one, else the largest margin.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`.
        x: clean images.
        y: labels, int64 `[B]`.
        threat: the transformation.
        candidates: parameters of the transformation, `[B, count, P]`, or `[1, count, P]` if all images share them.
        goal: classes to reach, int64 `[B]`, or None.
        keep: `"success"` stops at an image's first success, in the order of the candidates; `"best"` tries all, and
            returns the success with the largest margin.
        chunk: how many images go through the model at once.
    """
    count = candidates.shape[1]
    objective = margin()
    candidates = candidates.expand(len(x), -1, -1)
    best, index, tried = Best(x), torch.arange(len(x), device=x.device), 0
    with torch.no_grad():
        while tried < count and len(index):
            width = min(max(1, chunk // len(index)), count - tried)
            successes = []
            for rows in index.split(chunk):
                # evaluate the next `width` candidates of each image
                owner = rows.repeat_interleave(width)
                z = candidates[rows, tried : tried + width].flatten(0, 1)
                x_adv = threat.take(owner).apply(x[owner], z)
                logits = model(x_adv)
                targets = Targets(y[owner], None if goal is None else goal[owner], owner)
                if tried == 0:
                    check_classes(logits, targets.y, targets.goal)
                value = objective(targets.step(model, x_adv, logits)).to(x.dtype).view(len(rows), width)
                value = value.nan_to_num(nan=float("-inf"))
                success = succeeded(logits, targets.y, targets.goal).view(len(rows), width)
                # choose the first success if one is enough, and the largest margin otherwise
                rank = torch.where(success, float("inf"), value) if keep == "success" else value
                chosen = rank.argmax(1) + width * torch.arange(len(rows), device=x.device)
                value, success = value.flatten()[chosen], success.flatten()[chosen]
                # keep the best
                best.update(x_adv[chosen], success, value, rows)
                successes.append(success)
            tried += width
            # images with a success leave the batch
            if keep == "success":
                index = index[~torch.cat(successes)]
    return best.x_adv


def search_parameters(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ParametricThreat,
    *,
    goal: Tensor | None,
    search: Search,
    points: Mapping[str, int],
    samples: int,
    steps: int,
    step_size: float,
    restarts: int,
    random_start: bool,
    keep: Keep,
    chunk: int,
    generator: Generator | None,
) -> Tensor:
    """Search the parameters of the threat for a change that fools the model; `attacks.affine` explains the arguments.

    Raises:
        Unsupported: `search` or `keep` is unknown. InputError: another argument is out of its range.
        DataError: images or labels are wrong.
    """
    at_least_one(samples=samples, steps=steps, restarts=restarts, chunk=chunk, **points)
    if search not in get_args(Search):
        raise Unsupported(f"search={search!r} is unknown; choices: {', '.join(get_args(Search))}")
    if keep not in ("best", "success"):
        raise Unsupported(f"keep={keep!r} does not go with a search; choices: best, success")
    check_inputs(model, x, y, goal)
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    generator = default_generator(generator, x.device)
    with frozen(model):
        if search == "gradient":
            start = threat.random_start(x, generator) if random_start else threat.start(x)
            return _follow_gradient(model, x, y, threat, start, goal, steps, step_size, restarts, keep, generator)
        candidates = threat.grid(x, points) if search == "grid" else threat.draws(x, samples, generator)
        return worst_of(model, x, y, threat, candidates, goal=goal, keep=keep, chunk=chunk)


def _follow_gradient(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ParametricThreat,
    start: Tensor,
    goal: Tensor | None,
    steps: int,
    step_size: float,
    restarts: int,
    keep: Keep,
    generator: Generator | None,
) -> Tensor:
    """Follow the gradient of the margin, once for every combination of the on-off parameters."""
    objective = margin()
    best, index = Best(x), torch.arange(len(x), device=x.device)
    for z in threat.switched(start):
        # gradient ascent
        targets = Targets(y[index], None if goal is None else goal[index], index)
        remaining = threat.take(index)
        x_adv = ascend(
            model,
            x[index],
            targets.y,
            Recipe(objective, remaining, step_rule=torch.as_tensor(remaining.eps) * step_size, keep=keep),
            goal=targets.goal,
            steps=steps,
            restarts=restarts,
            z=z[index],
            generator=generator,
        )
        # keep the best
        with torch.no_grad():
            logits = model(x_adv)
            value = objective(targets.step(model, x_adv, logits)).to(x.dtype)
        success = succeeded(logits, targets.y, targets.goal)
        best.update(x_adv, success, value, index)
        # images with a success leave the batch
        if keep == "success":
            index = index[~success]
        if len(index) == 0:
            break
    return best.x_adv
