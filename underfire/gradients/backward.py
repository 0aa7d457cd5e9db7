"""Rules of the backward pass: contexts `(model, x)` in which a network passes back something else than its gradient.

The values of the network stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from underfire.errors import InputError
from underfire.hooks.residual import scaled_branches

Backward = Callable[[nn.Module, Tensor], AbstractContextManager[None]]


def true_gradient(model: nn.Module, x: Tensor) -> AbstractContextManager[None]:
    """Leave the gradients of the network as they are."""
    return nullcontext()


def skip_gradient(gamma: float = 0.2) -> Backward:
    """Multiply the gradient of every residual branch by `gamma`, so that more of it passes through the shortcuts (SGM).

    Args:
        gamma: the factor, which the paper sets to 0.2 for ResNet-152 and to 0.5 for DenseNet-201; 1 is the true
            gradient.

    Raises:
        InputError: gamma is not in `[0, 1]`. Unsupported: in an attack, the network has no residual branches.

    Source: Wu et al., Skip Connections Matter: On the Transferability of Adversarial Examples Generated with ResNets,
        ICLR 2020.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"skip_gradient needs gamma in [0, 1], got {gamma}")
    return lambda model, x: scaled_branches(model, x, gamma)
