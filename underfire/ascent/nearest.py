"""What attacks of minimum size share: the nearest success of every sample, and a norm without a bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.ascent.rows import in_parts
from underfire.ascent.step import Targets, succeeded
from underfire.ascent.threats import BALLS, Threat, ball
from underfire.domains import check_inputs, domain_of
from underfire.validate import check_classes


class Nearest:
    """The nearest success of every sample so far.

    What is never fooled, or only by more than eps, comes back as the clean image itself: that is how an attack of
    minimum size marks it, and whoever measures sees a model that is right, and a perturbation of size zero.

    Args:
        x: clean images `[B, C, H, W]`.
        norm: how far is measured.
        eps: the largest perturbation that counts, one number or one per sample `[B]`; None is any.
        among: the norms that the attack has.

    Attributes:
        x_adv: the nearest successes, and clean images where there is none.
        size: how far they are (by `rank`), `[B]`; `inf` where there is none.

    Raises:
        Unsupported: the attack does not have the norm; InputError: eps is out of range.
    """

    def __init__(
        self, x: Tensor, norm: str, eps: float | Tensor | None = None, among: tuple[str, ...] = tuple(BALLS)
    ) -> None:
        self.threat: Threat = ball(norm, float("inf") if eps is None else eps, among=among)
        if eps is not None:
            self.threat.check(x)
        self.x = x
        self.x_adv = x.clone()
        precise = torch.promote_types(x.dtype, torch.float32)  # of whole numbers too, which are refused only later
        self.size = torch.full((len(x),), float("inf"), dtype=precise, device=x.device)

    @property
    def found(self) -> Tensor:
        """Which samples have a success, bool `[B]`."""
        return self.size < float("inf")

    def update(self, x_adv: Tensor, success: Tensor, index: Tensor | None = None) -> Tensor:
        """Keep what succeeds, is within eps and is nearer than before; which rows those are, bool like `success`.

        Args:
            x_adv: images `[M, C, H, W]` inside the box.
            success: whether they are what the attacker wants, bool `[M]`.
            index: the samples that they belong to, int64 `[M]`, none twice; None is all in order.
        """
        if index is None:
            index = torch.arange(len(self.x), device=self.x.device)
        size = self.threat.size(self.x[index], x_adv).to(self.size.dtype)
        eps = torch.as_tensor(self.threat.eps, dtype=size.dtype, device=size.device).expand(len(self.x))[index]
        rank = self.rank(self.x[index], x_adv, size)
        # Better by more than rounding, or the same radius twice would be decided by it.
        better = success & (size <= eps) & (rank < self.size[index] * (1 - 16 * torch.finfo(size.dtype).eps))
        rows = index[better]
        self.x_adv[rows], self.size[rows] = x_adv[better].detach(), rank[better]
        return better

    def rank(self, x: Tensor, x_adv: Tensor, size: Tensor) -> Tensor:
        """By what one success is better than another, `[M]`, lower is better: its size."""
        return size


def evaluate_clean(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    goal: Tensor | None,
    nearest: Nearest,
    chunk: int | None = None,
) -> tuple[Tensor, Targets]:
    """Logits `[B, K]` of the clean images, and where the attack starts; what is wrong from the start is found at once.

    An image that the model gets wrong already (or that is classified as its goal) is its own nearest success. No more
    than `chunk` images go through the model at once.

    Raises:
        DataError: images, labels or goals are wrong.
    """
    check_inputs(model, x, y, goal)
    nearest.threat = nearest.threat.in_domain(domain_of(model))
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    if len(x) == 0:
        return x.new_zeros(0, 1), targets
    logits = in_parts(model, x, chunk)
    check_classes(logits, y, goal)
    nearest.update(x, succeeded(logits, y, goal))
    return logits, targets


def max_distance(nearest: Nearest) -> Tensor:
    """How far each sample can go at most, `[B]`: to the far corner of the box, and no farther than eps."""
    x, threat = nearest.x, nearest.threat
    low, high = threat.room(x)
    corner = threat.size(x, x + torch.where(high > -low, high, low))
    return corner.minimum(torch.as_tensor(nearest.threat.eps, dtype=x.dtype, device=x.device))
