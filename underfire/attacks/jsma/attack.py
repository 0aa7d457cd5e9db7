"""JSMA (Papernot et al., The Limitations of Deep Learning in Adversarial Settings, EuroS&P 2016)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.step import Targets, succeeded
from underfire.attacks.jsma.pairs import best_pair
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.classes import sum_gradients
from underfire.hooks import frozen
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Papernot, McDaniel, Jha, Fredrikson, Celik and Swami, The Limitations of Deep Learning in Adversarial "
    "Settings, EuroS&P 2016",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l0",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
    quick={"share": 0.002},
)
def jsma(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l0",
    eps: float | Tensor | None = None,
    share: float = 0.145,
    theta: float = 1.0,
    pair: bool = True,
    candidates: int = 1,
    generator: Generator | None = None,
) -> Tensor:
    """Change the two entries of the largest saliency in every step, until the model predicts the target class.

    Let `alpha` be the derivative of the target's logit by a pair of entries, and `beta` that of the sum of all other
    logits. The pair with `alpha > 0 > beta` and the largest `-alpha * beta` is changed by `theta`; entries at the
    border of the box are left out. Derivatives are of logits, as in the paper; those of probabilities vanish and always
    have `beta = -alpha`. If no pair has `alpha > 0 > beta`, the paper's algorithm stops; this one then changes the
    entries that raise the target's logit most against the mean of the others. A step changes at most two entries, so
    there are `eps / 2` steps, rounded down.

    Args:
        goal: None leaves class `y` (ours; the paper has goals only).
        eps: how many entries may change, one number or one per sample `[B]`; None is the share `share` of all entries.
        share: share of the entries that may change if eps is None, the paper's Upsilon.
        theta: by how much an entry changes, as a share of its range: entries grow if it is positive, and fall if it is
            negative.
        pair: whether a step changes two entries, or only the one of the largest `-alpha * beta`.
        candidates: how many of the likeliest other classes of the clean image are tried as targets if there is no goal;
            the result with the fewest changes counts.

    Returns:
        The perturbed images, shaped like `x`; the clean image if there is no success.
    """
    at_least_one(candidates=candidates)
    if not (0 < share <= 1 and 0 < abs(theta) <= 1):
        raise InputError(f"share must be in (0, 1] and theta in [-1, 1] but not 0, got {share:g} and {theta:g}")
    entries = x.shape[1:].numel()
    nearest = Nearest(x, norm, share * entries if eps is None else eps, among=("l0",), domain=domain_of(model))
    together = 2 if pair else 1
    with frozen(model):
        logits, targets = evaluate_clean(model, x, y, goal, nearest)
        allowed = torch.as_tensor(nearest.threat.eps, device=x.device).expand(len(x))
        steps = (allowed // together).long()
        if goal is None:
            others = logits.scatter(1, y[:, None], float("-inf")) if len(x) else logits
            classes = others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices
        else:
            classes = goal[:, None]
        index = (~nearest.found & (steps > 0)).nonzero().squeeze(1)
        for target in classes[index].unbind(1):
            own = F.one_hot(target, logits.shape[1]).to(x.dtype)
            _run(model, x[index], targets.take(index), own, steps[index], theta, together, nearest)
    return nearest.x_adv


def _run(
    model: nn.Module,
    x_adv: Tensor,
    targets: Targets,
    own: Tensor,
    steps: Tensor,
    theta: float,
    together: int,
    nearest: Nearest,
) -> None:
    """Change entries until the target class is reached, and pass every success to `nearest`.

    Args:
        own: one-hot target classes, `[M, K]`.
        steps: number of steps of each sample, `[M]`.
        together: number of entries that a step changes.
    """
    low, high = (torch.as_tensor(bound).to(x_adv).expand_as(nearest.x) for bound in nearest.threat.bounds(nearest.x))
    for step in range(int(steps.max()) if len(steps) else 0):
        # derivatives of the target's logit and of the sum of the others, and the entries to change
        logits, jacobian = sum_gradients(model, x_adv, torch.stack([own, 1 - own], dim=1))
        change = theta * (high - low)[targets.index]
        alpha, beta = (change[:, None] * jacobian.nan_to_num(0, 0, 0)).flatten(2).unbind(1)
        domain = (x_adv < high[targets.index] if theta > 0 else x_adv > low[targets.index]).flatten(1)
        entries, useful = _most_salient(alpha, beta, domain, own.shape[1] - 1, together)
        # record the successes; they and samples that are stuck or out of steps leave
        success = succeeded(logits, targets.y, targets.goal)
        nearest.update(x_adv, success, targets.index)
        rows = (useful & ~success & (step < steps)).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        x_adv, targets, own, steps = x_adv[rows], targets.take(rows), own[rows], steps[rows]
        # change the entries
        step_by = change[rows].flatten(1).gather(1, entries[rows])
        z = x_adv.flatten(1).scatter_add(1, entries[rows], step_by).view_as(x_adv)
        x_adv = nearest.threat.clip(nearest.x[targets.index], z)
    with torch.no_grad():
        nearest.update(x_adv, succeeded(model(x_adv), targets.y, targets.goal), targets.index)


def _most_salient(alpha: Tensor, beta: Tensor, domain: Tensor, others: int, together: int) -> tuple[Tensor, Tensor]:
    """Return the entries inside `domain` to change, `[M, together]`, and whether changing them helps, `[M]`."""
    u, v = (torch.where(domain, values, float("-inf")) for values in (alpha, -beta))
    if together == 2:
        entries, saliency = best_pair(u, v)
    else:
        saliency, entries = (u.clamp_min(0) * v.clamp_min(0)).max(1, keepdim=True)
        saliency = saliency.squeeze(1)
    stuck = saliency <= 0
    if not bool(stuck.any()):
        return entries, ~stuck
    # no pair has both signs: take the entries that raise the target most against the mean of the others
    growth, largest = (u + v / others).topk(together, dim=1)
    return torch.where(stuck[:, None], largest, entries), ~stuck | (growth.sum(1) > 0)
