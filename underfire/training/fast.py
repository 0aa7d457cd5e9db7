"""Fast adversarial training: one step of FGSM from a random start (Wong, Rice and Kolter, ICLR 2020)."""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.model import Classifier
from underfire.training.crafting import BatchNorm, inner_attack
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Wong, Rice and Kolter, Fast Is Better than Free: Revisiting Adversarial Training, ICLR 2020",
    domains=ADDITIVE,
    robust=True,
)
def fast(
    model: nn.Module,
    data: Data,
    *,
    norm: str = "linf",
    eps: float = 8 / 255,
    step_size: float | None = None,
    batch_norm: BatchNorm = "eval",
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of images that one gradient step makes from a random point of the ball.

    It costs two passes for each batch, and may overfit to its single step: watch PGD while it runs. The authors craft
    with the batch's own statistics; that is `batch_norm="train"`.

    Args:
        step_size: length of the step; None is `1.25 * eps`, as in the paper.

    Raises:
        InputError: eps is not above 0.
    """
    length = 1.25 * eps if step_size is None else step_size
    craft = inner_attack("pgd", batch_norm, norm=norm, eps=eps, steps=1, step_size=length)

    def loss(step: TrainingStep) -> Tensor:
        return F.cross_entropy(step.model(craft(step)), step.y, reduction="none")

    return Training("fast", model, data, plan, generator, {"attack": craft}, eps=eps, norm=norm).run(loss)
