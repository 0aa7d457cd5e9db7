"""EAD (Chen et al., EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial Examples, AAAI 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.early_abort import EarlyAbort
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.objectives import carlini, margin
from underfire.ascent.step import Targets, succeeded, value_and_grad
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, Domain, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, per_sample


@card(
    "attack",
    paper="Chen, Sharma, Zhang, Yi and Hsieh, EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial "
    "Examples, AAAI 2018",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l1",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
    quick={"steps": 2, "binary_search_steps": 1},
)
def ead(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l1",
    eps: float | Tensor | None = None,
    steps: int = 1000,
    binary_search_steps: int = 9,
    step_size: float = 0.01,
    beta: float = 1e-3,
    c: float = 1e-3,
    confidence: float = 0.0,
    rule: str = "EN",
    fast: bool = True,
    abort_early: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """Minimise `c * f + beta * L1 + L2²` in the box by iterative shrinkage-thresholding, with a binary search over `c`.

    `f` is the hinge loss of Carlini and Wagner on the logits.

    Args:
        steps: number of iterations for each c; each costs two forward passes and one backward pass (one and one if
            `fast` is False).
        step_size: step size of the first iteration; in a later one it is multiplied by the square root of the share of
            the steps that remain.
        beta: weight of L1. The shrinkage subtracts beta itself, as the paper prints it, not beta times the step size.
        rule: which success is returned: `"EN"`, the one of the smallest `beta * L1 + L2²`, or `"L1"`, the one of the
            smallest L1.
        fast: whether to use Nesterov's momentum (FISTA, as in the paper) or not (ISTA).
        abort_early: whether the run for one c ends for a sample that has not succeeded in it and whose lowest loss has
            fallen by less than a ten-thousandth in a tenth of the iterations.

    Returns:
        The best success of each sample according to `rule`, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps, binary_search_steps=binary_search_steps)
    check_choice(("EN", "L1"), rule=rule)
    if not (step_size > 0 and c > 0 and beta >= 0 and confidence >= 0):
        raise InputError(
            "ead needs step_size > 0, c > 0, beta >= 0, confidence >= 0; "
            f"got {step_size:g}, {c:g}, {beta:g}, {confidence:g}"
        )
    nearest = (
        _Elastic(x.detach(), beta, eps, norm, domain_of(model))
        if rule == "EN"
        else Nearest(x.detach(), norm, eps, among=("l1",), domain=domain_of(model))
    )
    with frozen(model):
        _, targets = evaluate_clean(model, x, y, goal, nearest)
        targets = targets.take((~nearest.found).nonzero().squeeze(1))
        weights = BinarySearch(nearest.x, c)
        for _ in range(binary_search_steps if len(targets.index) else 0):
            tried = weights.c[targets.index]
            success = _descend(model, nearest, targets, tried, steps, step_size, beta, confidence, fast, abort_early)
            weights.update(success, targets.index)
    return nearest.x_adv


def _descend(
    model: nn.Module,
    nearest: Nearest,
    targets: Targets,
    c: Tensor,
    steps: int,
    step_size: float,
    beta: float,
    confidence: float,
    fast: bool,
    abort_early: bool,
) -> Tensor:
    """Run shrinkage-thresholding with one c for each sample; return which samples succeeded, bool `[M]`."""
    ever, rows = torch.zeros_like(targets.y, dtype=torch.bool), torch.arange(len(targets.y), device=targets.y.device)
    x = nearest.x[targets.index]
    z, ahead, abort = x, x, EarlyAbort(c, steps) if abort_early else None
    hinge, weight = carlini(6, confidence), per_sample(c, x)
    logits, value, g = value_and_grad(model, hinge, z, targets)
    for step in range(steps):
        # gradient step of size alpha, and shrinkage
        if fast and step:
            _, _, g = value_and_grad(model, hinge, ahead, targets)
        alpha = step_size * (1 - step / steps) ** 0.5
        last, z = z, _shrink(x, ahead - alpha * (2 * (ahead - x) - weight * g), beta, nearest.threat)
        # the point of the next gradient: extrapolated (FISTA), or the iterate itself (ISTA)
        if fast:
            ahead = z + step / (step + 3) * (z - last)
            with torch.no_grad():
                logits = model(z)
                value = hinge(targets.step(model, z, logits))
        else:
            ahead = z
            logits, value, g = value_and_grad(model, hinge, z, targets)
        # record the successes
        success = succeeded(logits, targets.y, targets.goal)
        if confidence:
            success &= margin()(targets.step(model, z, logits)) >= confidence
        nearest.update(z, success, targets.index)
        ever[rows] |= success
        # samples that have not succeeded and whose loss has stopped falling leave; after a success the point keeps
        # crossing the boundary, and comes nearer only as the steps shrink
        if abort is None:
            continue
        change = (z - x).flatten(1)
        loss = change.square().sum(1) + beta * change.abs().sum(1) - weight.flatten() * value
        stalls = abort.stalled(loss, torch.full_like(rows, step)) & ~ever[rows]
        if step % abort.window == 0 and bool(stalls.any()):
            stays = (~stalls).nonzero().squeeze(1)
            if len(stays) == 0:
                break
            x, z, ahead, g, weight, rows = (t[stays] for t in (x, z, ahead, g, weight, rows))
            targets = targets.take(stays)
            abort.take(stays)
    return ever


def _shrink(x: Tensor, z: Tensor, beta: float, threat: Threat) -> Tensor:
    """Shrink every change from `x` to `z` by beta towards zero, and clip to the box: the paper's operator S."""
    shift = z - x
    return threat.clip(x, x + shift.sign() * (shift.abs() - beta).clamp_min(0))


class _Elastic(Nearest):
    """Nearest successes by elastic-net distance, among those within eps in L1."""

    def __init__(self, x: Tensor, beta: float, eps: float | Tensor | None, norm: str, domain: Domain) -> None:
        super().__init__(x, norm, eps, among=("l1",), domain=domain)
        self.beta = beta

    def rank(self, x_adv: Tensor, index: Tensor, size: Tensor) -> Tensor:
        """Return `beta * L1 + L2²`, `[M]`."""
        return self.beta * size + (x_adv - self.x[index]).square().flatten(1).sum(1)
