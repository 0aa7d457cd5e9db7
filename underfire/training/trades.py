"""TRADES (Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objective import objective
from underfire.ascent.step import Step
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.hooks import frozen
from underfire.model import Classifier
from underfire.training.crafting import BatchNorm, attacked_form, check_eps
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.ramps import Ramp, check_ramp, ramped
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least, at_least_one

START = 1e-3
"""Standard deviation of the noise that the inner attack begins with, in units of the image."""


@card(
    "training",
    paper="Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, Theoretically Principled Trade-off between Robustness and "
    "Accuracy, ICML 2019",
    domains=ADDITIVE,
    robust=True,
)
def trades(
    model: nn.Module,
    data: Data,
    *,
    norm: str = "linf",
    eps: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    beta: float = 6.0,
    ramp: Ramp = (0.0, 0.0),
    batch_norm: BatchNorm = "eval",
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise `CE(f(x), y) + beta KL(f(x) || f(x'))`, with the x' in the ball that maximise the divergence.

    Args:
        step_size: length of one step of the inner attack; None is `2.5 * eps / steps`, with the eps of the ramp. The
            authors have .007 for eps .031 and 10 steps.
        beta: the weight of the divergence; the authors have 6 for CIFAR-10 and 1 for MNIST.

    Raises:
        InputError: eps is not above 0, beta is below 0, or there is no step.
    """
    check_eps(eps)
    at_least(0, beta=beta)
    at_least_one(steps=steps)
    check_ramp(ramp)

    def loss(step: TrainingStep) -> Tensor:
        x_adv, size = step.x, eps * ramped(step.number / step.steps, ramp)
        if size > 0:
            length = 2.5 * size / steps if step_size is None else step_size
            x_adv = craft(step, norm, size, steps, length, batch_norm)
        clean = step.model(step.x)
        return F.cross_entropy(clean, step.y, reduction="none") + beta * divergence(clean, step.model(x_adv))

    attack = {"norm": norm, "eps": eps, "steps": steps, "step_size": step_size, "ramp": ramp, "batch_norm": batch_norm}
    options = {**attack, "beta": beta}
    return Training("trades", model, data, plan, generator, options, eps=eps, norm=norm).run(loss)


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence `KL(softmax(clean) || softmax(perturbed))` of logits, `[B]`."""
    return F.kl_div(perturbed.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)


def craft(step: TrainingStep, norm: str, eps: float, steps: int, step_size: float, batch_norm: BatchNorm) -> Tensor:
    """Return the images in the ball whose outputs diverge most from those of the clean ones."""
    attacked = attacked_form(step.model, batch_norm)
    with torch.no_grad(), frozen(attacked):
        clean = attacked(step.x)

    def term(inner: Step) -> Tensor:
        return divergence(clean, inner.logits)

    recipe = Recipe(objective(term, logits_only=True), ball(norm, eps), step_rule=step_size, keep="last")
    noise = torch.randn(step.x.shape, generator=step.generator, dtype=step.x.dtype, device=step.x.device)
    return ascend(attacked, step.x, step.y, recipe, steps=steps, z=step.x + START * noise)
