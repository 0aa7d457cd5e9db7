"""DeepFool (Moosavi-Dezfooli et al., DeepFool: A Simple and Accurate Method to Fool DNNs, CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.step import succeeded
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.classes import class_gradients
from underfire.hooks import frozen
from underfire.validate import at_least_one, per_sample


@card(
    "attack",
    paper="Moosavi-Dezfooli, Fawzi and Frossard, DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks, "
    "CVPR 2016",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2", "linf"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
)
def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    generator: Generator | None = None,
) -> Tensor:
    """Step to the nearest boundary of the linearised network until the class changes.

    The paper ignores the box. Here every iterate is clipped to it, and an entry at the border of the box that a step
    would push out does not count in the distance to a class boundary. Without these entries a step of the paper goes
    only a part of this distance; such short steps end nearer but can stop before the boundary, so that the part has a
    lower bound that grows from 0 at the first step to 1 at the last. As in the authors' code, the iterates include the
    overshoot, so that the last one is the result.

    Args:
        goal: with a goal, only the boundary to it is considered (ours; the paper has no goals).
        steps: largest number of steps of any sample.
        overshoot: share by which the perturbation is made longer than the distance to the boundary.
        candidates: how many of the likeliest other classes of the clean image are tried; each costs a backward pass.

    Returns:
        The perturbed images, shaped like `x`; the clean image if there is no success.
    """
    at_least_one(steps=steps, candidates=candidates)
    if not overshoot >= 0:
        raise InputError(f"overshoot must be >= 0, got {overshoot}")
    nearest = Nearest(x, norm, eps, among=("l2", "linf"), domain=domain_of(model))
    with frozen(model):
        logits, at = evaluate_clean(model, x, y, goal, nearest)
        if goal is None:
            others = logits.scatter(1, y[:, None], float("-inf")) if len(x) else logits
            classes = others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices
        else:
            classes = goal[:, None]
        clip = nearest.threat.clip
        # rows are the samples without a success; r is their perturbation before the overshoot
        r = torch.zeros_like(x)
        x_adv = x.detach()
        rows = (~succeeded(logits, at.y, at.goal)).nonzero().squeeze(1)
        for number in range(steps):
            if len(rows) == 0:
                break
            at, classes, r, x_adv, current = at.take(rows), classes[rows], r[rows], x_adv[rows], logits[rows].argmax(1)
            # step to the nearest boundary, and overshoot
            start = x[at.index]
            least = (number + 1) / steps
            r = clip(start, start + r + _step(model, x_adv, classes, current, nearest.threat, least)) - start
            x_adv = clip(start, start + (1 + overshoot) * r)
            # samples that succeed leave; a forward pass finds them before the many backward passes of the next step
            with torch.no_grad():
                logits = model(x_adv)
            success = succeeded(logits, at.y, at.goal)
            nearest.update(x_adv, success, at.index)
            rows = (~success).nonzero().squeeze(1)
    return nearest.x_adv


def _step(model: nn.Module, x: Tensor, classes: Tensor, current: Tensor, threat: Threat, least: float) -> Tensor:
    """Return the step from `x` to the nearest class boundary of the linearised network, `[B, ...]`.

    Args:
        model: maps `x` to logits.
        x: the current iterates, `[B, ...]`.
        classes: the classes to reach, int64 `[B, k]`.
        current: the predicted classes, int64 `[B]`.
        threat: the norm in which the distance is measured, and the box.
        least: the smallest part of the distance that a step goes.
    """
    logits, w = class_gradients(model, x, classes, against=current)
    f = (logits.gather(1, classes) - logits.gather(1, current[:, None])).abs()
    down, up = (room[:, None] for room in threat.room(x))
    tiny, q = torch.finfo(w.dtype).tiny, 2 if threat.norm == "l2" else 1
    # The distance is `|f| / |w|_q`, along the direction of length one in the p-norm in which w grows most
    # (`1/p + 1/q = 1`), for the entries of w that can move.
    whole = torch.linalg.vector_norm(w.flatten(2), ord=q, dim=2)
    w = torch.where(((w > 0) & (up <= 0)) | ((w < 0) & (down >= 0)), 0, w)
    slope = torch.linalg.vector_norm(w.flatten(2), ord=q, dim=2)
    distance = torch.where(slope > 0, f / slope.clamp_min(tiny), float("inf"))
    length, best = distance.min(1)
    length = torch.where(length.isfinite(), length + 1e-6, 0)  # the 1e-6 breaks a tie of two logits
    each = torch.arange(len(x), device=x.device)
    w, slope, whole = w[each, best], slope[each, best], whole[each, best]
    # the paper's step, clipped, goes this part of the distance
    length = length * (slope / whole.clamp_min(tiny)).pow(q).clamp_min(least)
    direction = w.sign() if threat.norm == "linf" else w / per_sample(slope.clamp_min(tiny), w)
    return per_sample(length, direction) * direction
