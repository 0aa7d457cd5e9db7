"""UAP (Moosavi-Dezfooli et al., Universal Adversarial Perturbations, CVPR 2017), by DeepFool and by gradients."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.objectives import log_odds
from underfire.ascent.sources import evaluate
from underfire.ascent.step import Targets, succeeded
from underfire.ascent.threat import Threat
from underfire.ascent.threats import ball
from underfire.ascent.universal import cross_fit_halves
from underfire.attacks.deepfool import deepfool
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs, domain_of
from underfire.errors import InputError, Unsupported
from underfire.gradients.estimators import autograd
from underfire.gradients.smoothing import norms
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_classes, default_generator

Solver = Literal["deepfool", "sgd"]


@card(
    "attack",
    paper="Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, Universal Adversarial Perturbations, CVPR 2017",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
    universal=True,
    quick={"steps": 1},
)
def uap(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 10 / 255,
    solver: Solver = "sgd",
    steps: int = 10,
    rate: float = 0.8,
    step_size: float | None = None,
    ceiling: float = 9.0,
    chunk: int = 32,
    held_out: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """Add one perturbation to all images; each half of the batch gets the perturbation made from the other half.

    The share of fooled images is therefore measured on held-out images. With goals there is one perturbation for each
    goal class, made from all images of other classes. `universal_perturbation` makes them; if eps differs between
    samples, it uses the largest, and every perturbed image is projected onto its own ball.

    Args:
        eps: radius of the ball (the paper's xi), one number or one per sample `[B]`.
        solver: `"sgd"`, by gradients; or `"deepfool"`, as in the paper, which takes no goals. With the defaults, SGD
            fools 0.33 of the held-out images of ResNet-20 and 0.58 of an MNIST network, DeepFool 0.23 and 0.61 in seven
            to nine times the time (`python -m benchmarks universal`).
        steps: largest number of rounds through the images.
        rate: share of fooled images at which the rounds end, the paper's 1 - delta.
        step_size: size of a gradient step in the norm; None is `eps / 4`.
        ceiling: log-odds above which an image no longer contributes to the gradient; only for `"sgd"`.
        chunk: number of images between two updates; the paper updates after every image.
        held_out: False makes one perturbation from all images and adds it to the same images.

    Raises:
        Unsupported: a goal is given for DeepFool.
    """
    generator = default_generator(generator, x.device)
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    _check(steps, rate, chunk, solver, goal)
    x_adv = x.clone()
    if len(x) == 0:
        return x_adv
    radius = torch.as_tensor(eps).expand(len(x))
    # make a perturbation for each half and each goal class, and add it to the images of the other half
    for made, used, wanted in cross_fit_halves(y, goal, held_out, generator):
        v = universal_perturbation(
            model,
            x[made],
            y[made],
            goal=None if wanted is None else wanted.expand(len(made)),
            norm=norm,
            eps=float(radius.to(x.device)[used].max()),
            solver=solver,
            steps=steps,
            rate=rate,
            step_size=step_size,
            ceiling=ceiling,
            chunk=chunk,
            generator=generator,
        )
        x_adv[used] = threat.take(used).project(x[used], x[used] + v)
    return x_adv


def universal_perturbation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float = 10 / 255,
    solver: Solver = "sgd",
    steps: int = 10,
    rate: float = 0.8,
    step_size: float | None = None,
    ceiling: float = 9.0,
    chunk: int = 32,
    generator: Generator | None = None,
) -> Tensor:
    """Return one perturbation `[1, ...]` that fools the model for most inputs when it is added to them and clipped.

    With DeepFool, each input that the perturbation does not fool yet is moved to its nearest boundary, and the sum of
    these moves over a chunk is added to the perturbation. With gradients (Shafahi et al., Universal Adversarial
    Training, AAAI 2020), each step goes along the gradient of the mean loss, which is clipped so that fooled inputs do
    not dominate it; the loss is the log-odds, because the gradient of cross-entropy vanishes on confident models. An
    input counts as fooled if it leaves class `y` or reaches its goal. The perturbation of the best round is returned.

    The arguments are those of `uap`, except that eps is one number.

    Raises:
        Unsupported: a goal is given for DeepFool.
    """
    generator = default_generator(generator, x.device)
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    _check(steps, rate, chunk, solver, goal)
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    v = best = x.new_zeros(1, *x.shape[1:])
    highest = -1.0
    with frozen(model):
        for step in range(steps + 1):
            # keep the perturbation that fools most inputs
            share = _fooled(model, x, v, targets, threat, chunk)
            if share >= highest:
                best, highest = v, share
            if share >= rate or step == steps:
                break
            # one round through the inputs
            for rows in torch.randperm(len(x), generator=generator, device=x.device).split(chunk):
                z, here = x[rows], targets.take(rows)
                if solver == "deepfool":
                    change = _to_boundaries(model, z, v, here, threat)
                else:
                    change = (eps / 4 if step_size is None else step_size) * _steepest(
                        model, z, v, here, threat, ceiling
                    )
                v = _shrink(v + change, norm, eps)
    return best


def _check(steps: int, rate: float, chunk: int, solver: Solver, goal: Tensor | None) -> None:
    """Raise an error if an option is out of its range."""
    at_least_one(steps=steps, chunk=chunk)
    if not 0 <= rate <= 1:
        raise InputError(f"rate must be in [0, 1], got {rate:g}")
    if solver not in get_args(Solver):
        raise Unsupported(f"solver {solver!r} is not supported here; choices: {', '.join(get_args(Solver))}")
    if solver == "deepfool" and goal is not None:
        raise Unsupported("a universal perturbation by DeepFool has no goal; use solver='sgd'")


@torch.no_grad()
def _fooled(model: nn.Module, x: Tensor, v: Tensor, targets: Targets, threat: Threat, chunk: int) -> float:
    """Return the share of inputs that `v` fools."""
    logits = torch.cat([model(threat.clip(part, part + v)) for part in x.split(chunk)])
    check_classes(logits, targets.y, targets.goal)
    return float(succeeded(logits, targets.y, targets.goal).double().mean())


def _to_boundaries(model: nn.Module, x: Tensor, v: Tensor, targets: Targets, threat: Threat) -> Tensor:
    """Return the sum of DeepFool's perturbations `[1, ...]` over the inputs that `v` does not fool."""
    z = threat.clip(x, x + v)
    with torch.no_grad():
        rows = (~succeeded(model(z), targets.y, targets.goal)).nonzero().squeeze(1)
    if len(rows) == 0:
        return torch.zeros_like(v)
    way = deepfool(model, z[rows], targets.y[rows], norm="l2", steps=10) - z[rows]
    return way.sum(0, keepdim=True)


def _steepest(model: nn.Module, x: Tensor, v: Tensor, targets: Targets, threat: Threat, ceiling: float) -> Tensor:
    """Return the direction of length one in which the mean of the clipped log-odds grows most."""
    objective = log_odds()

    def loss(v: Tensor) -> Tensor:
        z = threat.clip(x, x + v)
        return evaluate(model, z, targets.step, lambda step: [objective(step)])[1][0].clamp_max(ceiling)

    gradient = torch.nan_to_num(autograd(loss, v)[1], 0, 0, 0)
    return threat.steepest(gradient, v, v)


def _shrink(v: Tensor, norm: str, eps: float) -> Tensor:
    """Project `v` onto the ball of radius eps around zero; the box is ignored."""
    if norm == "linf":
        return v.clamp(-eps, eps)
    return v * (eps / norms(v, 2).clamp_min(torch.finfo(v.dtype).tiny)).clamp_max(1)
