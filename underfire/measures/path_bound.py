"""The change of an attribution map and its lower bound (Zhang et al., USENIX Security 2020, Proposition 1).

The map of a path method, such as integrated gradients, is complete: it sums to the change of the explained logit
between a baseline x̄ and the image. For an image x° explained for class c and an image x* explained for class k,

    sum(m* - m°) = (f_k(x*) - f_k(x̄*)) - (f_c(x°) - f_c(x̄°)),

and the sum of differences is at most the sum of their absolute values, `||m* - m°||_1`. Where both maps explain one
class and share one baseline, this is the proposition: `|f_c(x*) - f_c(x°)| <= ||m* - m°||_1`. It bounds maps as they
are returned. It says nothing about maps that are scaled to [0, 1], nor about which pixels are the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.attribution.fills import fill_image
from underfire.attribution.variants import Model
from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import as_map, ratio, wide
from underfire.measures.maps import one_grid

_PAPER = "Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, Proposition 1"


@card("measure", paper=_PAPER, table="maps", higher_is_better=False)
def map_change(m: Tensor, n: Tensor) -> Tensor:
    """Return the L1 distance of two maps as they are, divided by the L1 norm of the first, `[B]`; nan if that is 0."""
    m, n = one_grid(as_map(m), as_map(n))
    return ratio((n - m).abs().flatten(1).mean(1), m.abs().flatten(1).mean(1))


@card("measure", paper=_PAPER, higher_is_better=False)
@torch.no_grad()
def map_change_bound(
    model: Model, x: Tensor, x_adv: Tensor, m: Tensor, *, baseline: str | float | Tensor = "black"
) -> Tensor:
    """Return the least `map_change` that a complete map of the predicted class can have, `[B]`; nan if the map is 0.

    Args:
        m: the maps of `x`, as a path method returns them for the predicted classes, `[B, 1, h, w]`.
        baseline: the baseline of the path: `"black"`, `"mean"`, `"blur"`, a grey value in [0, 1], or images.

    Raises:
        InputError: the shapes do not fit.
    """
    if x.shape != x_adv.shape or len(as_map(m)) != len(x):
        raise InputError(f"images and maps do not fit: got {tuple(x.shape)}, {tuple(x_adv.shape)} and {tuple(m.shape)}")
    before, after = (_gain(model, images, baseline) for images in (x, x_adv))
    size = as_map(m).abs().sum((1, 2, 3))
    return ratio((after - before).abs().to(size), size)


def _gain(model: Model, x: Tensor, baseline: str | float | Tensor) -> Tensor:
    """Return the logit of the predicted class minus that of the same class at the baseline, `[B]`."""
    start = baseline.to(x).expand_as(x) if isinstance(baseline, Tensor) else fill_image(x, baseline)
    logits = wide(model(x))
    change = logits - wide(model(start))
    return change.gather(1, logits.argmax(1, keepdim=True))[:, 0]
