"""The best iterate of a run of gradient steps, to which a step rule may send a row back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from underfire.ascent.step import State, choose, take


@dataclass(frozen=True)
class Leader:
    """The best iterate of a run with its objective, gradient and memory, and the previous iterate's objective."""

    before: Tensor
    top: Tensor
    z: Tensor
    g: Tensor
    memory: State

    def take(self, rows: Tensor) -> Leader:
        """Return the leaders of some rows."""
        return Leader(*take((self.before, self.top, self.z, self.g, self.memory), rows))

    def follow(self, here: Leader) -> tuple[Leader, Tensor]:
        """Return the leader after the iterate `here`, and whether its objective rose in the last step, bool `[B]`."""
        higher = here.top > self.top
        ahead, behind = ((one.top, one.z, one.g, one.memory) for one in (here, self))
        return Leader(here.top, *choose(higher, ahead, behind)), here.top > self.before
