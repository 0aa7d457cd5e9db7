"""Parseval training (Cisse et al., Parseval Networks: Improving Robustness to Adversarial Examples, ICML 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.training.images import Data
from underfire.training.parseval.convex_sum import ConvexSum, onto_simplex
from underfire.training.parseval.retraction import retract
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least_one


@card(
    "training",
    paper="Cisse, Bojanowski, Grave, Dauphin and Usunier, Parseval Networks: Improving Robustness to Adversarial "
    "Examples, ICML 2017",
    domains=ADDITIVE,
    robust=True,
)
def parseval(
    model: nn.Module,
    data: Data,
    *,
    beta: float = 0.002,
    share: float = 0.3,
    passes: int = 1,
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy, and after each step move the weights of every layer towards a tight frame.

    Layers whose singular values are 1 do not enlarge a perturbation. Convolutions are kept at a tight frame divided by
    the root of the number of places of their kernels. Sums of branches are convex where the network has
    `parseval.ConvexSum`; other sums stay as they are, and so do batch norms. A weight decay works against the frames.

    Args:
        beta: the length of the step towards the frame.
        share: the share of the rows of a linear layer with at least 200 rows that a step retracts.
        passes: number of such steps after each step of the optimiser.

    Raises:
        InputError: beta is not above 0, `share` is not in (0, 1], or `passes` is below 1.
    """
    if not (beta > 0 and 0 < share <= 1):
        raise InputError(f"beta must be above 0 and share in (0, 1], got {beta:g} and {share:g}")
    at_least_one(passes=passes)
    options = {"beta": beta, "share": share, "passes": passes}
    training = Training("parseval", model, data, plan, generator, options)
    sums = [layer for layer in training.model.modules() if isinstance(layer, ConvexSum)]

    def constrain(*_: Any) -> None:
        rows = Generator().manual_seed((training.seed + training.batches.step) % 2**63)
        retract(training.model, beta, share, passes, rows)
        with torch.no_grad():
            for layer in sums:
                layer.coefficients.copy_(onto_simplex(layer.coefficients))

    training.optimiser.register_step_post_hook(constrain)

    def loss(step: TrainingStep) -> Tensor:
        return F.cross_entropy(step.model(step.x), step.y, reduction="none")

    return training.run(loss)
