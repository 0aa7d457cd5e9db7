"""Train a classifier whose explanations resist attacks, and with them its predictions.

Source: Boopathy et al., Proper Network Interpretability Helps Robustness in Classification, ICML 2020; the schedule of
eps and the weights are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objective import Objective, objective
from underfire.ascent.objectives import cross_entropy, log_odds
from underfire.ascent.step import Step
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.gradients.estimators import autograd
from underfire.hooks import frozen, shared_forward
from underfire.model import Classifier
from underfire.training.crafting import check_eps
from underfire.training.explaining import Explainer, Interpreter, explainer
from underfire.training.images import Data
from underfire.training.interpretability_aware.discrepancy import (
    Others,
    class_weights,
    compared_classes,
    discrepancy,
    discrepancy_at,
)
from underfire.training.interpretability_aware.variants import VARIANTS, VariantName
from underfire.training.live_weights import live_weights
from underfire.training.plan import USUAL, Plan
from underfire.training.ramps import Ramp, check_ramp, ramped
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least, at_least_one, check_choice


@card(
    "training",
    paper="Boopathy, Liu, Zhang, Liu, Chen, Chang and Daniel, Proper Network Interpretability Helps Robustness in "
    "Classification, ICML 2020",
    robust=True,
)
def interpretability_aware(
    model: nn.Module,
    data: Data,
    *,
    variant: VariantName = "int",
    interpreter: Interpreter = "cam",
    others: Others | None = None,
    eps: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    gamma: float = 0.01,
    ramp: Ramp = (1 / 60, 1 / 12),
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy plus the worst change of the explanations in the ball, `CE + gamma D(x, x')`.

    `D` is the L1 distance of the maps of the label, plus that of the other classes, weighted by their probabilities at
    x'. The maps are computed in evaluation mode unless they share the pass of the cross-entropy, as those of CAM do.

    Args:
        variant: `"int"`: x' maximises D. `"int_one_class"`: the same with the map of the label alone. `"int_adv"`: the
            cross-entropy is that of x', which maximises both terms. `"int2"`: x' is made by PGD on the cross-entropy.
            `"int2_adv"`: the same, and the cross-entropy is that of x'.
        interpreter: the explanation, differentiable in the image and in the weights; the paper has CAM. `gamma` is in
            units of its map.
        others: the classes beside the label that count: `"weighted"`, `"likeliest"` (the most likely one of the clean
            image, the two-class discrepancy) or `"none"`; None is what the variant has. With an interpreter that makes
            a pass for every class, `"likeliest"` costs less.
        step_size: length of one step of the inner attack; None is `2.5 * eps / steps`, with the eps of the ramp.
        gamma: the weight of D; the authors have 0.01.
        ramp: the default is that of the authors for MNIST. For CIFAR-10 they have (0.064, 0.895).

    Raises:
        InputError: a number is out of its range. Unsupported: the interpreter is not differentiable.
    """
    check_eps(eps)
    at_least(0, gamma=gamma)
    at_least_one(steps=steps)
    check_choice(get_args(VariantName), variant=variant)
    check_ramp(ramp)
    chosen = VARIANTS[variant]
    if others is not None:
        check_choice(get_args(Others), others=others)
        chosen = replace(chosen, others=others)
    explain = explainer(interpreter, steps)
    options = {
        "variant": chosen,
        "interpreter": explain.text,
        "attack": (eps, steps, step_size, ramp),
        "gamma": gamma,
    }
    training = Training("interpretability_aware", model, data, plan, generator, options, eps=eps)
    explain.check(training.model, training.like, training.like.new_zeros(1).long())

    def loss(step: TrainingStep) -> Tensor:
        # inner maximisation
        size = eps * ramped(step.number / step.steps, ramp)
        forget()
        classes = compared_classes(step.model, step.x, step.y, training.classes, chosen.others)
        x_adv = step.x
        if size > 0:
            length = 2.5 * size / steps if step_size is None else step_size
            x_adv = craft(step, explain, size, steps, length, chosen.others, classes, chosen.attacks, gamma)
        forget()
        # outer minimisation: maps and logits of an image share one pass
        with live_weights(step.model):
            x, x_adv = (images.detach().requires_grad_(True) for images in (step.x, x_adv))
            logits, maps = step.model(x), explain.maps(step.model, x, classes)
            logits_adv, maps_adv = step.model(x_adv), explain.maps(step.model, x_adv, classes)
            weights = class_weights(logits_adv, classes, chosen.others)
        forget()
        entropy = F.cross_entropy(logits_adv if chosen.perturbed else logits, step.y, reduction="none")
        return entropy + gamma * discrepancy(maps, maps_adv, weights)

    with shared_forward(training.model) as forget:
        return training.run(loss)


def craft(
    step: TrainingStep,
    explain: Explainer,
    eps: float,
    steps: int,
    step_size: float,
    others: Others,
    classes: Sequence[Tensor],
    attacks: str,
    gamma: float,
) -> Tensor:
    """Return the perturbed images of a step: those of PGD, or those with the largest discrepancy."""
    aim, estimate = log_odds(), autograd
    if attacks != "cross_entropy":
        aim, estimate = _discrepancy_from(step, explain, classes, others), explain.estimate
        if attacks == "both":
            aim = cross_entropy() + gamma * aim
    recipe = Recipe(aim, ball("linf", eps), step_rule=step_size, estimate=estimate, keep="last")
    return ascend(step.model, step.x, step.y, recipe, steps=steps, random_start=True, generator=step.generator)


def _discrepancy_from(step: TrainingStep, explain: Explainer, classes: Sequence[Tensor], others: Others) -> Objective:
    """Return the discrepancy from the maps of the clean images of a step, as the objective of an attack."""
    with frozen(step.model), torch.no_grad():
        maps = explain.maps(step.model, step.x, classes).detach()

    def term(inner: Step) -> Tensor:
        return discrepancy_at(inner.model, explain, inner.x, inner.logits, classes, maps, others)

    return objective(term)
