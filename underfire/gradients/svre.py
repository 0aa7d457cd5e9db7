"""Stochastic variance reduced ensemble attack (Xiong et al., CVPR 2022), as an estimator of the gradient."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.errors import Unsupported
from underfire.gradients.attack_loss import AttackLoss, Loss
from underfire.gradients.estimators import Estimator, autograd, without_memory
from underfire.gradients.smoothing import normalise
from underfire.validate import at_least


def svre(inner_steps: int | None = None, inner_decay: float = 1.0) -> Estimator:
    """Reduce the variance between the sources of an ensemble by inner steps on one random source each (SVRE).

    From the iterate, `inner_steps` steps of the attack's own length are taken. Each follows the accumulated
    `grad_k(z~) - (grad_k(z) - grad(z))`, divided by its L1 norm, of a source `k` that is drawn uniformly; `grad` is the
    gradient of the whole ensemble. The result is the accumulated gradient after the last inner step, which the
    momentum of the attack divides by its L1 norm once more, as in the authors' code. The images of a batch share the
    draws. Costs `2 * inner_steps + 1` forward and backward passes, of which one passes all sources.

    Args:
        inner_steps: number of inner steps, the paper's M; None is four for each source, as in the paper.
        inner_decay: share of the accumulated gradient that is kept in each inner step, the paper's mu_2.

    Raises:
        InputError: an argument is out of its range. Unsupported: on a call, the model is not an ensemble.

    Source: Xiong, Lin, Zhang, Hopcroft and He, Stochastic Variance Reduced Ensemble Adversarial Attack for Boosting the
        Adversarial Transferability, CVPR 2022.
    """
    at_least(0, inner_decay=inner_decay)
    if inner_steps is not None:
        at_least(1, inner_steps=inner_steps)
    unit = normalise(1)

    @without_memory
    def estimate(loss: Loss, z: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        if not isinstance(loss, AttackLoss) or len(loss.members) < 2:
            raise Unsupported("svre needs an ensemble of at least two sources; underfire.models.ensemble makes one")
        count = inner_steps or 4 * len(loss.members)
        device = z.device if generator is None else generator.device
        drawn = torch.randint(len(loss.members), (count,), generator=generator, device=device).tolist()
        value, whole = autograd(loss, z)
        ahead, total = z, torch.zeros_like(z)
        for k in drawn:
            here, there = (autograd(loss.members[k], point)[1] for point in (z, ahead))
            total = inner_decay * total + unit(there - (here - whole))
            ahead = loss.advance(ahead, total)
        return value, total

    return estimate
