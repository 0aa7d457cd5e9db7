"""Adversarial training: minimise the loss of the images that an attack of every step makes.

Sources: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018; Goodfellow et al.,
Explaining and Harnessing Adversarial Examples, ICLR 2015.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.training.crafting import Attack, BatchNorm, inner_attack
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.ramps import Ramp
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, "
    "ICLR 2018; Goodfellow, Shlens and Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015",
    domains=ADDITIVE,
    robust=True,
)
def adversarial(
    model: nn.Module,
    data: Data,
    *,
    attack: Attack = "pgd",
    norm: str | None = None,
    eps: float = 8 / 255,
    steps: int | None = None,
    step_size: float | None = None,
    clean_weight: float = 0.0,
    ramp: Ramp = (0.0, 0.0),
    batch_norm: BatchNorm = "eval",
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of the images of an inner attack, `a J(x) + (1 - a) J(x')`.

    With `attack="pgd"` and `clean_weight=0` it is the training of Madry et al.; with `attack="fgsm"` and
    `clean_weight=0.5` that of Goodfellow et al.; `attack="rand_fgsm"` is the single step that masked gradients fool
    less (Tramer et al.). Any other attack of the catalogue may be the inner attack.

    Args:
        attack: the inner attack: a name, a mapping with its options, such as `{name: mi_fgsm, decay: 0.9}`, or a
            function `(model, x, y) -> x'`.
        norm: the norm of eps; None is the first norm of the attack.
        steps: iterations of the attack; None are 7 of PGD, and of another attack its usual ones.
        step_size: length of one step; None is the usual one of the attack.
        clean_weight: the weight `a` of the clean images.

    Raises:
        InputError: eps is not above 0, the weight is not in [0, 1), or the attack or one of its options is wrong.
    """
    if not 0 <= clean_weight < 1:
        raise InputError(
            f"clean_weight must be in [0, 1), got {clean_weight:g}; the method standard has only clean images"
        )
    craft = inner_attack(attack, batch_norm, ramp, norm=norm, eps=eps, steps=steps, step_size=step_size)

    def loss(step: TrainingStep) -> Tensor:
        x_adv = craft(step)
        perturbed = F.cross_entropy(step.model(x_adv), step.y, reduction="none")
        if clean_weight == 0:
            return perturbed
        clean = F.cross_entropy(step.model(step.x), step.y, reduction="none")
        return clean_weight * clean + (1 - clean_weight) * perturbed

    options = {"attack": craft, "clean_weight": clean_weight}
    return Training("adversarial", model, data, plan, generator, options, eps=eps, norm=norm or "linf").run(loss)
