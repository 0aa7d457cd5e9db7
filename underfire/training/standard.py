"""Train a classifier by the cross-entropy of clean images: empirical risk minimisation."""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.model import Classifier
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Rumelhart, Hinton and Williams, Learning Representations by Back-Propagating Errors, Nature 1986",
    domains=ADDITIVE,
)
def standard(model: nn.Module, data: Data, *, plan: Plan = USUAL, generator: Generator | None = None) -> Classifier:
    """Minimise the cross-entropy of the clean images: the baseline without any defence."""

    def loss(step: TrainingStep) -> Tensor:
        return F.cross_entropy(step.model(step.x), step.y, reduction="none")

    return Training("standard", model, data, plan, generator, {}).run(loss)
