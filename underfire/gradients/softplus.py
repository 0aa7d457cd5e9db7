"""Estimate gradients on a network whose rectifiers are softplus functions that become steeper from step to step."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.gradients.estimators import Estimator, Loss, State, autograd
from underfire.hooks import softplus_relu


def softplus(first: float = 10.0, last: float = 100.0, steps: int = 100) -> Estimator:
    """Take the gradient with every rectifier replaced by a softplus, whose beta grows from `first` to `last`.

    The value that the attack compares is that of the network itself. So every step costs a forward pass (and a map)
    more. It is meant for objectives that contain a gradient, whose derivative is zero almost everywhere on a network of
    rectifiers; they need an interpreter with `double_backward="exact"`.

    Args:
        first: beta at the first step.
        last: beta after the last step; in between it grows by the same factor at every step.
        steps: number of steps of the attack.

    Raises:
        InputError: an argument is out of its range.

    Source: Dombrowski et al., Explanations Can Be Manipulated and Geometry is to Blame, NeurIPS 2019, appendix A.
    """
    if not 0 < first <= last or steps < 1:
        raise InputError(f"softplus needs 0 < first <= last and steps >= 1, got {first}, {last} and {steps}")

    def update(loss: Loss, z: Tensor, generator: Generator | None, state: State) -> tuple[Tensor, Tensor, State]:
        with softplus_relu(first * (last / first) ** min(state / steps, 1.0)):
            _, gradient = autograd(loss, z)
        with torch.no_grad():
            return loss(z), gradient, state + 1

    return Estimator(lambda z, index: 0, update)
