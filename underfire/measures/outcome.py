"""Measure the outcome of an attack from the returned images alone; nothing that the attack reports is used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from underfire.domains import IMAGES, Domain
from underfire.measures.perturbation import in_box, sizes, within
from underfire.measures.prediction import confidence, success


def attack_outcome(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    goal: Tensor | None = None,
    *,
    norm: str = "",
    eps: float | None = None,
    logits: Tensor | None = None,
    domain: Domain = IMAGES,
) -> dict[str, Tensor]:
    """Return the outcome of an attack on each sample, each value `[B]`, by name.

    `pred_adv` and `conf_adv` are the predicted class of `x_adv` and its probability. `success` is True if the
    prediction is wrong (or is the goal), the sample lies inside the box, and the perturbation within `eps`; `in_box`
    and `within_eps` are the last two conditions alone. `linf`, `l2`, `l1` and `l0` are the sizes of the perturbation.

    Args:
        model: maps samples to logits `[B, K]`; it is called once, unless `logits` are given.
        x: clean samples.
        x_adv: what the attack returned.
        y: labels, int64 `[B]`.
        goal: the class that each sample should reach, int64 `[B]`; None for an untargeted attack.
        norm: the norm of `eps`; a change that is not additive cannot be measured, and counts as within `eps`.
        eps: the largest size that the attack was allowed; None is any.
        logits: the logits of `x_adv`, if they are known.
        domain: the kind of input, whose box counts.
    """
    if logits is None:
        with torch.no_grad():
            logits = model(x_adv)
    pred, inside = logits.argmax(1), in_box(x_adv, domain=domain)
    allowed = torch.ones_like(inside) if eps is None else within(x, x_adv, norm, eps)
    return {
        "pred_adv": pred,
        "conf_adv": confidence(logits, pred),
        "success": success(logits, y, goal) & inside & allowed,
        "in_box": inside,
        "within_eps": allowed,
        **sizes(x, x_adv),
    }
