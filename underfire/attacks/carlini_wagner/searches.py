"""How the attacks of Carlini and Wagner search: by the weight c (L2), a falling limit (L-infinity), entries (L0)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.nearest import value_and_grad
from underfire.ascent.objectives import Targets, margin
from underfire.attacks.carlini_wagner.descent import Search


class L2Search(Search):
    """L2: a binary search over `c`; every run starts at the clean image.

    The authors stop where the loss fell by less than a ten-thousandth. What a run gains after its loss has ceased to
    fall by a tenth is little, and its steps are better spent on the next `c`.
    """

    fall = 0.1

    def __init__(self, x: Tensor, c: float, step_size: float, binary_search_steps: int) -> None:
        super().__init__(x, c, step_size)
        self.weights = BinarySearch(x, c)
        self.c, self.left = self.weights.c, torch.full((len(x),), binary_search_steps, device=x.device)

    def conclude(self, x_adv: Tensor, solved: Tensor, reached: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Learn from runs that ended: which samples go on, and from which images."""
        self.weights.update(reached, targets.index)
        self.left[targets.index] -= 1
        return self.left[targets.index] > 0, self.x[targets.index]


class LimitSearch(Search):
    """A limit that becomes tighter by every run that meets it; one that does not doubles `c`, and the next goes on."""

    def __init__(self, x: Tensor, c: float, step_size: float, largest: float) -> None:
        super().__init__(x, c, step_size)
        self.largest = largest

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """The next limit of samples that have met theirs: which have one, bool `[M]`, and where they start."""
        raise NotImplementedError

    def conclude(self, x_adv: Tensor, solved: Tensor, reached: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Learn from runs that ended: which samples go on, and from which images."""
        self.c[targets.index[~solved]] *= 2
        on, start = self.c[targets.index] <= self.largest, x_adv.clone()
        rows = solved.nonzero().squeeze(1)
        if len(rows):
            on[rows], start[rows] = self.tighten(x_adv[rows], targets.take(rows))
        return on, start


class LinfSearch(LimitSearch):
    """L-infinity: only what changes by more than `tau` counts, and `tau` falls to nine tenths."""

    def __init__(self, x: Tensor, c: float, step_size: float) -> None:
        super().__init__(x, c, step_size, largest=20)
        self.tau = torch.ones_like(self.c)

    def distance(self, shift: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the changes are, `[M]`, and the gradient of that."""
        over = shift.abs() - self.tau[index].reshape(-1, 1, 1, 1)
        return over.clamp_min(0).flatten(1).sum(1), shift.sign() * (over > 0)

    def solved(self, success: Tensor, far: Tensor, index: Tensor) -> Tensor:
        """Return which runs have found what they were for, bool `[M]`."""
        return success & (far <= 1e-4 * self.c[index])

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Return which samples have a next limit, bool `[M]`, and where they start."""
        largest = (x_adv - self.x[targets.index]).abs().flatten(1).amax(1)
        tau = 0.9 * torch.minimum(self.tau[targets.index], largest)
        self.tau[targets.index] = tau
        # A step that is longer than what is allowed cannot come to rest inside.
        self.step_size[targets.index] = torch.minimum(self.step_size[targets.index], tau)
        return tau > 1e-4, x_adv


class L0Search(LimitSearch):
    """L0: the entries that do least for the success may not change any more, several at a time.

    As many as do a twentieth of the whole together, and the `0.3 sqrt(n)` of `n` of the authors' code at least: by that
    alone an image of 150,000 entries would take 2,600 rounds.
    """

    def __init__(self, x: Tensor, c: float, step_size: float, model: nn.Module) -> None:
        super().__init__(x, c, step_size, largest=2e6)
        self.model, self.free = model, torch.ones_like(x, dtype=torch.bool)

    def shown(self, x_adv: Tensor, index: Tensor) -> Tensor:
        """Return the images as far as they may change."""
        return torch.where(self.free[index], x_adv, self.x[index])

    def solved(self, success: Tensor, far: Tensor, index: Tensor) -> Tensor:
        """Return which runs have found what they were for, bool `[M]`."""
        return success

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Return which samples have a next limit, bool `[M]`, and where they start."""
        start = self.x[targets.index]
        shift = x_adv - start
        # The slope of f itself is zero where the attack is through; that of the margin is not.
        _, _, slope = value_and_grad(self.model, margin(), x_adv, targets)
        changed = self.free[targets.index] & (shift.abs() > 1e-4)  # what did not change is not needed
        count = changed.flatten(1).sum(1)
        gain, order = torch.where(changed, slope * shift, float("inf")).flatten(1).sort(1)
        done = torch.where(gain.isinf(), 0, gain).clamp_min(0).cumsum(1)
        little = (done < 0.05 * done[:, -1:]).sum(1)
        dropped = little.maximum((0.3 * count.to(x_adv.dtype).sqrt()).long().clamp_min(1))
        stays = torch.arange(gain.shape[1], device=gain.device) >= dropped[:, None]
        free = changed & torch.zeros_like(stays).scatter(1, order, stays).view_as(changed)
        self.free[targets.index] = free
        return count > 1, torch.where(free, x_adv, start)
