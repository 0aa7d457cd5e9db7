"""Steps whose size follows their success, sample by sample: APGD's, and those of APGD-L1.

A control has `move(threat, x, z, old, g, step) -> z`, `back(step, rose, top, x, best) -> [B]`, and `take(rows)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.ascent.moves import take
from underfire.ascent.threats import Threat


def checkpoints(steps: int) -> list[int]:
    """After which steps progress is judged: at 22 %, 41 %, ..., each gap 3 % shorter but at least 6 %, rounded up."""
    p, gap, found = 22, 22, []
    while p < 100:
        found.append(-(-p * steps // 100))
        gap = max(gap - 3, 6)
        p += gap
    return sorted(set(found))


class Halving:
    """How APGD steps in L-infinity and L2: with momentum, half as far after every period that brought too little.

    Source: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks, ICML 2020, algorithm 1.
    """

    def __init__(self, threat: Threat, x: Tensor, steps: int, momentum: float, rho: float) -> None:
        self.momentum, self.rho = momentum, rho
        self.points = [0, *checkpoints(steps)]
        self.size = 2 * torch.as_tensor(threat.eps).reshape(-1, 1, 1, 1)
        self.rises = torch.zeros_like(self.size.flatten())
        self.halved = torch.ones_like(self.rises, dtype=torch.bool)
        self.record = torch.full_like(self.rises, float("-inf"))

    def take(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.size, self.rises, self.halved, self.record = take((self.size, self.rises, self.halved, self.record), rows)

    def move(self, threat: Threat, x: Tensor, z: Tensor, old: Tensor, g: Tensor, step: int) -> Tensor:
        """The next iterate after `z`, whose gradient is `g`, and `old` before it."""
        ahead = threat.project(x, z + self.size * threat.steepest(g, x, z))
        if step == 0:
            return ahead  # nothing to repeat yet
        return threat.project(x, z + self.momentum * (ahead - z) + (1 - self.momentum) * (z - old))

    def should_backtrack(self, step: int, rose: Tensor, top: Tensor, x: Tensor, best: Tensor) -> Tensor | None:
        """Which samples halve their step and go back to their best iterate; None is nobody."""
        self.rises = self.rises + rose
        if step not in self.points:
            return None
        period = step - self.points[self.points.index(step) - 1]
        stalls = (self.rises <= self.rho * period) | (~self.halved & (self.record >= top))
        self.size = torch.where(stalls.reshape(-1, 1, 1, 1), self.size / 2, self.size)
        self.rises, self.halved, self.record = torch.zeros_like(self.rises), stalls, top
        return stalls


class Sparse:
    """How APGD-L1 steps: 1.5 times less at every checkpoint, at least a tenth, unless the best iterate grew sparser.

    Source: Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers, ICML 2021.
    """

    def __init__(self, threat: Threat, x: Tensor, steps: int, z: Tensor) -> None:
        self.period = max(int(0.04 * steps), 1)
        self.size = self.full = torch.as_tensor(threat.eps).reshape(-1, 1, 1, 1)
        self.moved, self.entries = self._count(x, z)

    def take(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.size, self.full, self.entries, self.moved = take((self.size, self.full, self.entries, self.moved), rows)

    def move(self, threat: Threat, x: Tensor, z: Tensor, old: Tensor, g: Tensor, step: int) -> Tensor:
        """The next iterate after `z`, whose gradient is `g`: its largest entries, all by the same length."""
        strength = g.abs().flatten(1)
        features = strength.shape[1]
        rank = (features - self.entries).clamp(0, features - 1).long()
        weakest = strength.sort(dim=1).values.gather(1, rank[:, None])
        direction = (g.flatten(1).sign() * (strength >= weakest)).view_as(g)
        count = direction.abs().flatten(1).sum(1).clamp_min(1).reshape(-1, 1, 1, 1)
        return threat.project(x, z + self.size * direction / count)

    def should_backtrack(self, step: int, rose: Tensor, top: Tensor, x: Tensor, best: Tensor) -> Tensor | None:
        """Which samples have a sparser best iterate: they go back to it with the full step."""
        if step % self.period:
            return None
        before = self.moved
        self.moved, self.entries = self._count(x, best)
        sparser = self.moved < 0.95 * before
        smaller = torch.maximum(self.size / 1.5, self.full / 10)
        self.size = torch.where(sparser.reshape(-1, 1, 1, 1), self.full, smaller)
        return sparser

    def _count(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """How many entries have moved, and how many the next steps move: fewer, so that the best grows sparser."""
        moved = (z != x).flatten(1).sum(1).to(x.dtype)
        return moved, torch.where(moved > 0, moved / 1.5, 0.2 * x[0].numel())
