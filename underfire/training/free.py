"""Free adversarial training: one backward pass updates the weights and the perturbation (Shafahi et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import Unsupported
from underfire.model import Classifier
from underfire.training.crafting import check_eps
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least_one


@card(
    "training",
    paper="Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein, Adversarial Training for "
    "Free!, NeurIPS 2019",
    domains=ADDITIVE,
    robust=True,
)
def free(
    model: nn.Module,
    data: Data,
    *,
    eps: float = 8 / 255,
    replays: int = 8,
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of perturbed images, each batch several times, while the perturbation climbs.

    Every backward pass gives the gradient of the weights and that of the images. The perturbation takes the step
    `eps * sign`, within eps in L-infinity, and goes on with the next batch. The epochs of the plan count the replays,
    so that training costs as many passes as `standard` with the same plan.

    Args:
        replays: how many times in a row a batch is used, the paper's m.

    Raises:
        InputError: eps is not above 0, or `replays` is below 1. Unsupported: the plan divides batches into parts.
    """
    check_eps(eps)
    at_least_one(replays=replays)
    if plan.accumulate > 1 or plan.processes.count > 1:
        raise Unsupported("free keeps a perturbation of the whole batch; train it in one process with accumulate=1")
    training = Training(
        "free", model, data, plan, generator, {"eps": eps, "replays": replays}, replays=replays, eps=eps
    )
    threat = ball("linf", eps).in_domain(training.model.domain)
    # the perturbation is a parameter of the optimiser, whose step is ours
    size = min(plan.batch_size, training.batches.batches.count)
    shift = nn.Parameter(training.like.new_zeros(size, *training.like.shape[1:]))
    training.batches.shift = shift
    training.optimiser.add_param_group({"params": [shift]})

    def climb(*_: Any) -> None:
        with torch.no_grad():
            if shift.grad is not None:
                shift.add_(eps * shift.grad.sign()).clamp_(-eps, eps)
            shift.grad = None  # the optimiser leaves a parameter without gradient as it is

    training.optimiser.register_step_pre_hook(climb)

    def loss(step: TrainingStep) -> Tensor:
        rows = shift[: len(step.x)]
        x_adv = threat.clip(step.x, step.x + rows)
        return F.cross_entropy(step.model(x_adv), step.y, reduction="none")

    return training.run(loss)
