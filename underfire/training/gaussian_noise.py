"""Train a classifier on images with Gaussian noise, as randomised smoothing needs it.

Source: Cohen, Rosenfeld and Kolter, Certified Adversarial Robustness via Randomized Smoothing, ICML 2019.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Cohen, Rosenfeld and Kolter, Certified Adversarial Robustness via Randomized Smoothing, ICML 2019",
    domains=ADDITIVE,
)
def gaussian_noise(
    model: nn.Module, data: Data, *, sigma: float = 0.25, plan: Plan = USUAL, generator: Generator | None = None
) -> Classifier:
    """Minimise the cross-entropy of images with Gaussian noise: the base of a smoothed classifier.

    The noise is that of `defenses.randomised_smoothing`: it may leave the range of the images, and is not cut off.

    Args:
        sigma: standard deviation of the noise, in units of the image.

    Raises:
        InputError: sigma is not above 0.
    """
    if sigma <= 0:
        raise InputError(f"gaussian_noise needs sigma > 0, got {sigma:g}; the method standard trains without noise")

    def loss(step: TrainingStep) -> Tensor:
        noise = torch.randn(step.x.shape, generator=step.generator, dtype=step.x.dtype, device=step.x.device)
        return F.cross_entropy(step.model(step.x + sigma * noise), step.y, reduction="none")

    return Training("gaussian_noise", model, data, plan, generator, {"sigma": sigma}).run(loss)
