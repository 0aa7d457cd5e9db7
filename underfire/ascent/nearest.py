"""Shared parts of attacks of minimum size: the nearest success of every sample, and the check of the clean inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.ascent.objectives import Objective
from underfire.ascent.rows import in_parts
from underfire.ascent.step import Step, Targets, succeeded, value_and_grad
from underfire.ascent.threats import BALLS, Threat, ball
from underfire.domains import Domain, check_inputs
from underfire.validate import check_classes


class Nearest:
    """The nearest success of every sample so far.

    A sample without a success within eps keeps its clean image. An attack of minimum size returns that image, so that a
    measure finds a correct prediction and a perturbation of size zero.

    Args:
        x: clean inputs `[B, ...]`.
        norm: the norm that distances are measured in.
        eps: the largest perturbation that counts, one number or one per sample `[B]`; None is any.
        among: the norms that the attack supports.
        domain: the kind of input.

    Attributes:
        x_adv: the nearest successes, and the clean input where there is none.
        size: their distances (or what `rank` makes of them), `[B]`; infinite where there is none.

    Raises:
        Unsupported: the attack does not support the norm. InputError: eps is out of range.
    """

    def __init__(
        self,
        x: Tensor,
        norm: str,
        eps: float | Tensor | None = None,
        among: tuple[str, ...] = tuple(BALLS),
        *,
        domain: Domain,
    ) -> None:
        self.threat: Threat = ball(norm, float("inf") if eps is None else eps, among=among).in_domain(domain)
        if eps is not None:
            self.threat.check(x)
        self.x = x
        self.x_adv = x.clone()
        precise = torch.promote_types(x.dtype, torch.float32)  # integer images are refused later
        self.size = torch.full((len(x),), float("inf"), dtype=precise, device=x.device)

    @property
    def found(self) -> Tensor:
        """Return which samples have a success, bool `[B]`."""
        return self.size < float("inf")

    def update(self, x_adv: Tensor, success: Tensor, index: Tensor | None = None, size: Tensor | None = None) -> Tensor:
        """Keep the successes within eps that are nearer than before, and return which ones were kept, bool `[M]`.

        Args:
            x_adv: inputs `[M, ...]` inside the box.
            success: whether they are successes, bool `[M]`.
            index: the samples that they belong to, int64 `[M]`, none twice; None is all samples in order.
            size: their distances `[M]`, if they are known.
        """
        if size is None:
            size = self.threat.size(self.x if index is None else self.x[index], x_adv)
        if index is None:
            index = torch.arange(len(self.x), device=self.x.device)
        size = size.to(self.size.dtype)
        eps = torch.as_tensor(self.threat.eps, dtype=size.dtype, device=size.device).expand(len(self.x))[index]
        rank = self.rank(x_adv, index, size)
        # An improvement within rounding does not count.
        better = success & (size <= eps) & (rank < self.size[index] * (1 - 16 * torch.finfo(size.dtype).eps))
        kept = better.nonzero().squeeze(1)
        if len(kept):
            rows = index[kept]
            self.x_adv[rows], self.size[rows] = x_adv[kept].detach(), rank[kept]
        return better

    def rank(self, x_adv: Tensor, index: Tensor, size: Tensor) -> Tensor:
        """Return the number by which successes are compared, `[M]`, lower is better: their size."""
        return size


def evaluate_clean(
    model: nn.Module, x: Tensor, y: Tensor, goal: Tensor | None, nearest: Nearest, chunk: int | None = None
) -> tuple[Tensor, Targets]:
    """Check the inputs, and return the logits `[B, K]` of the clean images and the targets of the attack.

    A clean image that already is a success is its own nearest success. At most `chunk` images go through the model at
    once; None is all of them.

    Raises:
        DataError: images, labels or goals are wrong.
    """
    check_inputs(model, x, y, goal)
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    if len(x) == 0:
        return x.new_zeros(0, 1), targets
    logits = in_parts(model, x, chunk)
    check_classes(logits, y, goal)
    nearest.update(x, succeeded(logits, y, goal))
    return logits, targets


def differentiate_clean(
    model: nn.Module, x: Tensor, y: Tensor, goal: Tensor | None, nearest: Nearest, objective: Objective
) -> tuple[Targets, tuple[Tensor, Tensor, Tensor]]:
    """Evaluate the clean images like `evaluate_clean`; return the targets and the result of `value_and_grad`.

    An attack whose first step starts from the clean images needs no other pass for this step.

    Raises:
        DataError: images, labels or goals are wrong.
    """
    check_inputs(model, x, y, goal)
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    if len(x) == 0:
        return targets, (x.new_zeros(0, 1), x.new_zeros(0), x)

    def checked(step: Step) -> Tensor:
        check_classes(step.logits, y, goal)
        return objective(step)

    first = value_and_grad(model, checked, nearest.x, targets)
    nearest.update(nearest.x, succeeded(first[0], y, goal))
    return targets, first


def max_distance(nearest: Nearest) -> Tensor:
    """Return the largest distance of each sample, `[B]`: that of the far corner of the box, or eps if less."""
    x, threat = nearest.x, nearest.threat
    low, high = threat.room(x)
    corner = threat.size(x, x + torch.where(high > -low, high, low))
    return corner.minimum(torch.as_tensor(nearest.threat.eps, dtype=x.dtype, device=x.device))
