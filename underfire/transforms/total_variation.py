"""Total-variation minimisation of images of which only some pixels are known.

Sources: Rudin, Osher and Fatemi, Nonlinear Total Variation Based Noise Removal Algorithms, Physica D 1992; Chambolle
and Pock, A First-Order Primal-Dual Algorithm for Convex Problems with Applications to Imaging, JMIV 2011 (the solver).
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.errors import InputError


def gradients(z: Tensor) -> Tensor:
    """Return the differences of neighbours, down and to the right, `[2, B, C, H, W]`; 0 at the last row and column."""
    found = z.new_zeros(2, *z.shape)
    found[0, :, :, :-1] = z[:, :, 1:] - z[:, :, :-1]
    found[1, :, :, :, :-1] = z[:, :, :, 1:] - z[:, :, :, :-1]
    return found


def divergence(p: Tensor) -> Tensor:
    """Return minus the adjoint of `gradients`, `[B, C, H, W]` from `[2, B, C, H, W]`."""
    down, right = p[0, :, :, :-1], p[1, :, :, :, :-1]
    found = torch.zeros_like(p[0])
    found[:, :, :-1] += down
    found[:, :, 1:] -= down
    found[:, :, :, :-1] += right
    found[:, :, :, 1:] -= right
    return found


def total_variation(z: Tensor) -> Tensor:
    """Return the isotropic total variation of images, the sum of the lengths of the gradient, `[B]`."""
    return gradients(z).square().sum(0).sqrt().flatten(1).sum(1)


def minimise_total_variation(x: Tensor, known: Tensor, weight: float, steps: int = 100) -> Tensor:
    """Return the images `z` that minimise `½ |known · (z - x)|² + weight · total_variation(z)`.

    Every channel is an image of its own. The solver is the primal-dual algorithm of Chambolle and Pock, for the whole
    batch at once; it has no line search, so that the images of a batch do not influence one another.

    Args:
        x: images `[B, C, H, W]`.
        known: 1 at the pixels that count and 0 at those that are filled in, shaped like `x`.
        weight: weight of the total variation, in units of the image.
        steps: number of iterations.

    Raises:
        InputError: the weight is not positive, or there is no step.
    """
    if not weight > 0 or steps < 1:
        raise InputError(f"total variation needs a weight > 0 and steps >= 1, got {weight} and {steps}")
    # The product of the steps is 1/8, the bound of the squared norm of the gradient. Their ratio is that of the
    # distances to travel: the dual variable moves by at most `weight`, the image by a fraction of its range.
    tau = 0.03 / weight / 8**0.5
    sigma = 1 / (8 * tau)
    z = torch.where(known > 0, x, _mean_of_known(x, known))
    ahead, p = z, torch.zeros_like(gradients(z))
    for _ in range(steps):
        # ascent in the dual variable, projected to length `weight`
        p = p + sigma * gradients(ahead)
        p = p / (p.square().sum(0, keepdim=True).sqrt() / weight).clamp_min(1)
        # descent in the image; the known pixels are pulled to their values
        moved = z + tau * divergence(p)
        moved = (moved + tau * known * x) / (1 + tau * known)
        # extrapolation
        ahead, z = 2 * moved - z, moved
    return z


def _mean_of_known(x: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the known pixels of each channel, `[B, C, 1, 1]`."""
    return (known * x).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp_min(1)
