"""stAdv (Xiao et al., Spatially Transformed Adversarial Examples, ICLR 2018): pixels move instead of changing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.flows import Flow, roughness
from underfire.ascent.objectives import carlini
from underfire.ascent.quasi_newton import QuasiNewton
from underfire.ascent.step import Best, Targets, succeeded, take
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, check_classes


@card(
    "attack",
    paper="Xiao, Zhu, Li, He, Liu and Song, Spatially Transformed Adversarial Examples, ICLR 2018",
    knowledge="white-box",
    norms=("flow",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
)
def st_adv(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "flow",
    eps: float | Tensor = 1.0,
    steps: int = 100,
    step_size: float = 0.1,
    solver: Literal["lbfgs", "adam"] = "adam",
    weight: float = 0.05,
    confidence: float = 0.0,
    keep: Literal["success", "best"] = "success",
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Minimise `L_adv(x, f) + weight * L_flow(f)` over flow fields `f`, so that a smooth warp changes the class.

    `L_adv` is the hinge loss of Carlini and Wagner on the logits, and `L_flow` the total difference of neighbouring
    displacements. The paper does not bound single displacements; Laidlaw and Feizi (Functional Adversarial Attacks,
    NeurIPS 2019) bound them at 0.05 of half the side: 0.8 pixels on CIFAR-10, 5.6 on ImageNet.

    Args:
        eps: largest displacement of a pixel along either axis, in pixels, one number or one per sample `[B]`.
        steps: number of evaluations of the gradient.
        step_size: size of Adam's steps, or the largest displacement in the first trial of L-BFGS, in pixels.
        solver: `"adam"`, or `"lbfgs"` as in the paper. With 50 steps and eps 1, Adam fooled 1.00, 0.04, 1.00, 0.73 of
            the images of four networks, L-BFGS 0.94, 0.02, 1.00 and 0.35 (`python -m benchmarks st-adv`). Where both
            succeed, L-BFGS may find the smaller change.
        weight: weight of the flow loss, the paper's tau.
        confidence: lead of the wrong class, in logits, that a success must have; above it, only the flow loss is
            minimised.
        keep: `"success"` ends the search for a sample at its first success; `"best"` goes on to the smoothest success,
            as in the paper.
        mask: which pixels may be displaced.

    Returns:
        The warped images, shaped like `x`: a success with the confidence if there is one, else the iterate with the
        smallest hinge loss.
    """
    domain_of(model).require_images("st_adv")
    at_least_one(steps=steps)
    if step_size <= 0 or weight < 0:
        raise InputError(f"step_size must be > 0 and weight >= 0, got {step_size} and {weight}")
    check_choice(("flow",), norm=norm)
    check_choice(("lbfgs", "adam"), solver=solver)
    check_choice(("success", "best"), keep=keep)
    check_inputs(model, x, y, goal)
    threat = Flow(eps, mask)
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    start = threat.start(x)
    low, high = (threat.project(x, torch.full_like(start, end)) for end in (float("-inf"), float("inf")))
    search = (
        QuasiNewton(start, low, high, step_size=step_size) if solver == "lbfgs" else _Adam(start, low, high, step_size)
    )
    adversarial = carlini(6, confidence)
    best = Best(start)
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    with frozen(model):
        for step in range(steps):
            # forward and backward pass
            with torch.enable_grad():
                f = search.trial.requires_grad_(True)
                x_adv = threat.take(targets.index).apply(x[targets.index], f)
                logits = model(x_adv)
                if step == 0:
                    check_classes(logits, y, goal)
                near, rough = adversarial(targets.step(model, x_adv, logits)), roughness(f)
                loss = weight * rough - near
                (gradient,) = torch.autograd.grad(loss.sum(), f)
            # remember the smoothest success, or the iterate nearest to one
            near = near.detach()
            success = succeeded(logits, targets.y, targets.goal) & (near >= 0)
            score = torch.where(success, -rough.detach(), near)
            best.update(f.detach(), success, score, targets.index)
            # let the solver choose the next flow
            search.tell(loss.detach(), torch.nan_to_num(gradient, 0.0, 0.0, 0.0))
            # samples that are finished leave the batch
            finished = search.done | success if keep == "success" else search.done
            if bool(finished.any()):
                stays = (~finished).nonzero().squeeze(1)
                if len(stays) == 0:
                    break
                targets = targets.take(stays)
                search.take(stays)
    return threat.apply(x, best.x_adv)


class _Adam:
    """Projected Adam with the interface of `QuasiNewton`."""

    def __init__(self, z: Tensor, low: Tensor, high: Tensor, step_size: float) -> None:
        self.trial, self._low, self._high, self._size = z.clone(), low, high, step_size
        self._move = moves.adam()
        self._state = self._move.init(z)
        self.done = torch.zeros(len(z), dtype=torch.bool, device=z.device)

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Take one step along the gradient at `trial`."""
        direction, self._state = self._move.update(gradient, self._state)
        self.trial = (self.trial.detach() - self._size * direction).clamp(self._low, self._high)

    def take(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.trial, self._low, self._high = self.trial[rows], self._low[rows], self._high[rows]
        self._state, self.done = take(self._state, rows), self.done[rows]
