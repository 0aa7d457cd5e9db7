"""The searches of Carlini and Wagner's attacks: over c (L2), a falling limit (L-infinity), and free entries (L0)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.objectives import margin
from underfire.ascent.step import Targets, value_and_grad
from underfire.ascent.threats import Threat
from underfire.attacks.carlini_wagner.descent import Search
from underfire.validate import per_sample


class L2Search(Search):
    """A binary search over `c`; every run starts at the clean input."""

    def __init__(self, x: Tensor, c: float, step_size: float, threat: Threat, binary_search_steps: int) -> None:
        super().__init__(x, c, step_size, threat)
        self.weights = BinarySearch(x, c)
        self.c, self.left = self.weights.c, torch.full((len(x),), binary_search_steps, device=x.device)

    def conclude(self, x_adv: Tensor, solved: Tensor, reached: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Update the interval of `c`, and start again from the clean input."""
        self.weights.update(reached, targets.index)
        self.left[targets.index] -= 1
        return self.left[targets.index] > 0, self.x[targets.index]


class LimitSearch(Search):
    """A search with a limit on the change: a success tightens the limit, a failure doubles `c` and continues.

    Args:
        largest: a sample whose `c` exceeds this is given up.
    """

    def __init__(self, x: Tensor, c: float, step_size: float, threat: Threat, largest: float) -> None:
        super().__init__(x, c, step_size, threat)
        self.largest = largest

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Tighten the limit of samples that met it; return which go on, bool `[M]`, and their starts."""
        raise NotImplementedError

    def conclude(self, x_adv: Tensor, solved: Tensor, reached: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Double `c` after a failure, and tighten the limit after a success."""
        self.c[targets.index[~solved]] *= 2
        on, start = self.c[targets.index] <= self.largest, x_adv.clone()
        rows = solved.nonzero().squeeze(1)
        if len(rows):
            on[rows], start[rows] = self.tighten(x_adv[rows], targets.take(rows))
        return on, start


class LinfSearch(LimitSearch):
    """L-infinity: only changes beyond `tau` count as distance; `tau` falls by at least a tenth after a success."""

    def __init__(self, x: Tensor, c: float, step_size: float, threat: Threat) -> None:
        super().__init__(x, c, step_size, threat, largest=20)
        low, high = threat.domain.box(x)
        self.tau = torch.ones_like(self.c) * (high - low).amax()

    def distance(self, shift: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the changes beyond `tau`, and its gradient."""
        over = shift.abs() - per_sample(self.tau[index], shift)
        return over.clamp_min(0).flatten(1).sum(1), shift.sign() * (over > 0)

    def solved(self, success: Tensor, far: Tensor, index: Tensor) -> Tensor:
        """Return which runs succeed with almost no change beyond `tau`, bool `[M]`."""
        return success & (far <= 1e-4 * self.c[index])

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Set `tau` to nine tenths of the largest change, or of itself if that is less."""
        largest = (x_adv - self.x[targets.index]).abs().flatten(1).amax(1)
        tau = 0.9 * torch.minimum(self.tau[targets.index], largest)
        self.tau[targets.index] = tau
        # With steps longer than `tau` the changes could not settle within it.
        self.step_size[targets.index] = torch.minimum(self.step_size[targets.index], tau)
        return tau > 1e-4, x_adv


class L0Search(LimitSearch):
    """L0: after each success the entries that contribute least to it are frozen, several at a time.

    The entries frozen at once contribute up to a twentieth of the whole together, and are at least `0.3 sqrt(n)` of the
    `n` entries that still change, which is the number in the authors' code. With that number alone, an image of 150,000
    entries would need 2,600 runs.
    """

    def __init__(self, x: Tensor, c: float, step_size: float, threat: Threat, model: nn.Module) -> None:
        super().__init__(x, c, step_size, threat, largest=2e6)
        self.model, self.free = model, torch.ones_like(x, dtype=torch.bool)

    def shown(self, x_adv: Tensor, index: Tensor) -> Tensor:
        """Return `x_adv` with frozen entries set back to their clean values."""
        return super().shown(torch.where(self.free[index], x_adv, self.x[index]), index)

    def solved(self, success: Tensor, far: Tensor, index: Tensor) -> Tensor:
        """Return which runs succeed, bool `[M]`."""
        return success

    def tighten(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Freeze the entries that did not change and those that contribute least."""
        start = self.x[targets.index]
        shift = x_adv - start
        # The contribution of an entry is its slope times its change; of the margin, because the slope of f is zero
        # after a success.
        _, _, slope = value_and_grad(self.model, margin(), x_adv, targets)
        changed = self.free[targets.index] & (shift.abs() > 1e-4)  # what did not change is not needed
        count = changed.flatten(1).sum(1)
        gain, order = torch.where(changed, slope * shift, float("inf")).flatten(1).sort(1)
        total = torch.where(gain.isinf(), 0, gain).clamp_min(0).cumsum(1)
        # the entries that together contribute less than a twentieth
        little = (total < 0.05 * total[:, -1:]).sum(1)
        # freeze them, or the number of the authors if that is larger
        dropped = little.maximum((0.3 * count.to(x_adv.dtype).sqrt()).long().clamp_min(1))
        stays = torch.arange(gain.shape[1], device=gain.device) >= dropped[:, None]
        free = changed & torch.zeros_like(stays).scatter(1, order, stays).view_as(changed)
        self.free[targets.index] = free
        return count > 1, torch.where(free, x_adv, start)
