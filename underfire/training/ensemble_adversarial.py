"""Ensemble adversarial training (Tramer et al., Ensemble Adversarial Training: Attacks and Defenses, ICLR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire import models
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError, ModelError
from underfire.hooks import frozen
from underfire.model import Classifier, as_classifier
from underfire.training.crafting import Attack, BatchNorm, inner_attack
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Tramer, Kurakin, Papernot, Goodfellow, Boneh and McDaniel, Ensemble Adversarial Training: Attacks and "
    "Defenses, ICLR 2018",
    domains=ADDITIVE,
    robust=True,
)
def ensemble_adversarial(
    model: nn.Module,
    data: Data,
    *,
    sources: Sequence[nn.Module | str],
    attack: Attack = "fgsm",
    eps: float = 8 / 255,
    clean_weight: float = 0.5,
    batch_norm: BatchNorm = "eval",
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the mean of the clean and the perturbed cross-entropy, with images that other networks are fooled by.

    Each batch draws one network with equal chances: one of the static sources, or the network that is trained. The
    attack leaves the class that this network predicts, so that no label leaks into the perturbation.

    Args:
        sources: trained classifiers of the same classes, or their URIs; they do not change.
        attack: the inner attack, as in `adversarial`.
        clean_weight: the weight of the clean images; the paper has 0.5.

    Raises:
        InputError: there is no source, eps is not above 0, or the weight is not in [0, 1). ModelError: a source has
            another number of classes.
    """
    if isinstance(sources, (str, nn.Module)) or not sources:
        raise InputError("sources must be a list of models or of their URIs, at least one: zoo:resnet20_cifar10")
    if not 0 <= clean_weight < 1:
        raise InputError(f"clean_weight must be in [0, 1), got {clean_weight:g}")
    craft = inner_attack(attack, batch_norm, eps=eps)
    opened = [models.load(one) if isinstance(one, str) else as_classifier(one) for one in sources]
    options = {"attack": craft, "clean_weight": clean_weight, "sources": [models.fingerprint(one) for one in opened]}
    training = Training("ensemble_adversarial", model, data, plan, generator, options, eps=eps)
    for number, one in enumerate(opened):
        count = one.to(training.device).predict(training.like).shape[1]
        if count != training.classes:
            raise ModelError(f"source {number + 1} has {count} classes, and the model has {training.classes}")

    def loss(step: TrainingStep) -> Tensor:
        drawn = int(torch.randint(len(opened) + 1, (1,), generator=step.generator, device=step.generator.device))
        source = opened[drawn] if drawn < len(opened) else step.model
        with torch.no_grad(), frozen(source):
            predicted = source(step.x).argmax(1)
        x_adv = craft(step, None if source is step.model else source, predicted)
        clean, perturbed = (F.cross_entropy(step.model(x), step.y, reduction="none") for x in (step.x, x_adv))
        return clean_weight * clean + (1 - clean_weight) * perturbed

    return training.run(loss)
