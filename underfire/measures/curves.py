"""Quality of an attack of minimum size, from the sizes of its perturbations: one number for a whole set of images.

The curve of an attack is the robust accuracy at every size: the share of images that need a larger perturbation. An
image that the attack never fooled has the size `inf`, an image that was misclassified from the start the size 0.
"""

from __future__ import annotations

import math

from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError


@card(
    "measure",
    paper="Cinà, Rony, Pintor, Demetrio, Demontis, Biggio, Ben Ayed and Roli, AttackBench: Evaluating Gradient-based "
    "Attacks for Adversarial Examples, AAAI 2025",
    higher_is_better=False,
    limits=(0.0, 1.0),
    whole=True,
)
def optimality(sizes: Tensor, best: Tensor) -> float:
    """Return how near the attack's curve comes to the best known one: 1 if it is as good, 0 if nothing succeeds.

    The result is one minus a ratio of areas: between the attack's curve and the best one, over that between the clean
    accuracy and the best one, both up to the largest finite size of `best`. The areas are exact; the authors' code
    joins the steps of the curves by straight lines. The result is nan if no size of `best` is finite, or all of them
    are equal.

    Args:
        sizes: the sizes that the attack needed, `[B]`; `inf` where it failed.
        best: the smallest size that any attack needed for each image, `[B]`.

    Raises:
        InputError: the two have different lengths, a size is negative or nan, or `best` is larger than a size.
    """
    if sizes.shape != best.shape or sizes.dim() != 1:
        raise InputError(f"sizes and best must be [B], got {tuple(sizes.shape)} and {tuple(best.shape)}")
    sizes, best = sizes.detach().double(), best.detach().double()
    if not bool(((sizes >= 0) & (best >= 0)).all()):
        raise InputError("sizes must be >= 0, and inf where an attack failed")
    if bool((best > sizes).any()):
        raise InputError(
            f"best must be at most the size of any attack, but is larger for {int((best > sizes).sum())} images"
        )
    finite = best[best.isfinite()]
    if len(finite) == 0:
        return math.nan
    # The area under a step curve up to eps0 is the mean of the sizes, clipped at eps0.
    eps0 = finite.max()
    least = best.clamp_max(eps0).mean()
    room = (best > 0).double().mean() * eps0 - least
    # An image that was misclassified from the start counts for no attack.
    gap = (sizes.clamp_max(eps0) * (best > 0)).mean() - least
    return float(1 - gap / room) if room > 0 else math.nan
