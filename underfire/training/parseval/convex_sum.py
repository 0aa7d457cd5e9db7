"""Sums of branches with coefficients that are not negative and sum to 1, as Parseval networks have them.

Source: Cisse et al., Parseval Networks, ICML 2017, section 4.3; the projection is that of Duchi et al., Efficient
Projections onto the L1-Ball for Learning in High Dimensions, ICML 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.validate import at_least_one


class ConvexSum(nn.Module):
    """Add branches, each times its coefficient; a layer for residual networks that are trained by `parseval`.

    Such a sum of functions with Lipschitz constants of at most 1 has one of at most 1, too.

    Args:
        branches: the number of branches.
    """

    def __init__(self, branches: int = 2) -> None:
        at_least_one(branches=branches)
        super().__init__()
        self.coefficients = nn.Parameter(torch.empty(branches))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give all branches the same coefficient."""
        nn.init.constant_(self.coefficients, 1 / len(self.coefficients))

    def forward(self, *branches: Tensor) -> Tensor:
        """Return the weighted sum of the branches."""
        total = self.coefficients[0] * branches[0]
        for coefficient, branch in zip(self.coefficients[1:], branches[1:], strict=True):
            total = total + coefficient * branch
        return total


def onto_simplex(values: Tensor) -> Tensor:
    """Return the nearest point (in L2) whose entries are not negative and sum to 1, for values `[n]`."""
    ordered = values.sort(descending=True).values
    places = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    excess = (ordered.cumsum(0) - 1) / places
    last = int((ordered > excess).nonzero().max())
    return (values - excess[last]).clamp_min(0)
