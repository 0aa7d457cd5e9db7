"""The integrated gradients of the loss from an image to its perturbed version, and the attack that makes them large.

Source: Chen, Wu, Rastogi, Liang and Jha, Robust Attribution Regularization, NeurIPS 2019; the sum over the path and its
points are those of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objective import Objective, objective
from underfire.ascent.step import Step
from underfire.ascent.threats import ball
from underfire.hooks import twice_differentiable

PASS = 512
"""Points of the paths that pass through the network at once."""


def attribution_norm(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, points: int) -> Tensor:
    """Return the L1 norm of the integrated gradients of the cross-entropy from `x` to `x_adv`, `[B]`, with a graph.

    It is `|(x' - x) (1/m) sum_k grad CE(f(z_k), y)|_1` with `z_k = x + k/m (x' - x)` for k from 1 to m.

    Args:
        model: the classifier.
        x: clean images `[B, ...]`.
        x_adv: perturbed images.
        y: labels, int64 `[B]`.
        points: the paper's m.
    """
    shift = x_adv - x
    mean = torch.zeros_like(x)
    shares = torch.arange(1, points + 1, dtype=x.dtype, device=x.device) / points
    with torch.enable_grad(), twice_differentiable():
        for part in shares.split(max(1, PASS // max(1, len(x)))):
            z = x + part.view(-1, 1, *[1] * (x.dim() - 1)) * shift  # [points, B, ...]
            z = z.flatten(0, 1)
            if not z.requires_grad:
                z.requires_grad_(True)
            loss = F.cross_entropy(model(z), y.repeat(len(part)), reduction="sum")
            (slope,) = torch.autograd.grad(loss, z, create_graph=True)
            mean = mean + slope.unflatten(0, (len(part), -1)).sum(0) / points
    return (shift * mean).abs().flatten(1).sum(1)


def path_norm(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, points: int) -> Tensor:
    """Return `attribution_norm` of a network in training, computed in evaluation mode.

    Batch norms then use their running averages, which the points of the path do not change.
    """
    modes = [(layer, layer.training) for layer in model.modules()]
    try:
        for layer, _ in modes:
            layer.training = False
        return attribution_norm(model, x, x_adv, y, points)
    finally:
        for layer, training in modes:
            layer.training = training


def worst_attribution(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    points: int,
    eps: float,
    steps: int,
    step_size: float,
    weight: float,
    perturbed: bool,
    generator: Generator,
) -> Tensor:
    """Return the images of the ball that maximise the regularised loss, by sign steps from a random start.

    Args:
        points: the points of the path in the attack, fewer than in the loss.
        weight: the weight of the attribution, which counts beside the cross-entropy.
        perturbed: whether the cross-entropy of the perturbed images is maximised too.
    """

    def term(step: Step) -> Tensor:
        norm = attribution_norm(step.model, x[step.index], step.x, step.y, points)
        return weight * norm + F.cross_entropy(step.logits, step.y, reduction="none") if perturbed else norm

    aim: Objective = objective(term)
    recipe = Recipe(aim, ball("linf", eps), step_rule=step_size, keep="last")
    return ascend(model, x, y, recipe, steps=steps, random_start=True, generator=generator)
