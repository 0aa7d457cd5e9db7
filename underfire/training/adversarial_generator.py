"""Train a classifier against a network that makes perturbations, which is trained against the classifier.

Source: Baluja and Fischer, Learning to Attack: Adversarial Transformation Networks, AAAI 2018, with the game of
Goodfellow et al., Generative Adversarial Nets, NIPS 2014.
"""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.learning import drawn_seed, initialised
from underfire.model import Classifier
from underfire.training.crafting import check_eps
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least_one


class PerturbationNetwork(nn.Module):
    """Map images to perturbations in [-1, 1]: three convolutions, the last one followed by a tanh.

    Args:
        channels: channels of an image.
        width: channels of the inner layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the perturbations, shaped like `x`."""
        shift: Tensor = self.layers(x - 0.5)
        return shift


@card(
    "training",
    paper="Baluja and Fischer, Learning to Attack: Adversarial Transformation Networks, AAAI 2018",
    robust=True,
)
def adversarial_generator(
    model: nn.Module,
    data: Data,
    *,
    eps: float = 8 / 255,
    width: int = 32,
    attacker_rate: float = 0.1,
    clean_weight: float = 0.5,
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of clean images and of those that a trained network perturbs; the two take turns.

    The perturbation network G makes `x' = x + eps G(x)`, clipped to the box, and maximises the cross-entropy of x'. The
    paper trains such a network towards one class, with a penalty of the L2 distance in place of eps. If one of the
    networks overpowers the other, the classifier is robust against G alone: judge it by other attacks.

    Args:
        width: channels of the inner layers of G.
        attacker_rate: the learning rate of G, as a share of that of the classifier.
        clean_weight: the weight of the clean images in the loss of the classifier.

    Raises:
        InputError: eps or the rate is not above 0, or the weight is not in [0, 1).
    """
    check_eps(eps)
    at_least_one(width=width)
    if not (attacker_rate > 0 and 0 <= clean_weight < 1):
        raise InputError(
            f"attacker_rate must be above 0 and clean_weight in [0, 1), got {attacker_rate:g} and {clean_weight:g}"
        )
    x = data[0][:1] if isinstance(data, tuple) else data[:1].x
    made = initialised(lambda: PerturbationNetwork(x.shape[1], width), drawn_seed(generator)).to(x.dtype)
    options = {"eps": eps, "width": width, "attacker_rate": attacker_rate, "clean_weight": clean_weight}
    pair: dict[str, Any] = {"partner": made, "partner_rate": attacker_rate, "eps": eps}
    training = Training("adversarial_generator", model, data, plan, generator, options, **pair)
    threat = ball("linf", eps).in_domain(training.model.domain)

    def perturbed(step: TrainingStep) -> Tensor:
        return threat.clip(step.x, step.x + eps * made(step.x))

    def attack(step: TrainingStep) -> Tensor:
        with frozen(step.model):
            return -F.cross_entropy(step.model(perturbed(step)), step.y, reduction="none")

    def defend(step: TrainingStep) -> Tensor:
        x_adv = perturbed(step).detach()
        clean, adversarial = (F.cross_entropy(step.model(x), step.y, reduction="none") for x in (step.x, x_adv))
        return clean_weight * clean + (1 - clean_weight) * adversarial

    return training.run([attack, defend])
