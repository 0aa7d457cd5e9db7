"""Leave-one-out attribution (Yang et al., ML-LOO: Detecting Adversarial Examples, AAAI 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.removal import score_drops
from underfire.catalog import card


@card(
    "interpreter",
    paper="Yang, Chen, Hsieh, Wang and Jordan, ML-LOO: Detecting Adversarial Examples with Feature Attribution, "
    "AAAI 2020",
    family="perturbation",
    per_pixel=True,
    differentiable=True,
    second_order=False,
)
def leave_one_out(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    fill: str | float = "black",
    output: str = "probability",
    reuse: bool = True,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Return how much the probability of class `y` drops when one pixel is replaced: `phi_i = f(x)_c - f(x_(i))_c`.

    A pixel is replaced in all channels at once, so that an image costs as many passes as it has pixels; with `reuse`,
    each costs a fraction of a pass. In the paper, `y` is the predicted class.

    Args:
        output: `"probability"`, or `"logit"`, which does not saturate.
        reuse: compute only the activations that a pixel can have changed, which gives the same numbers up to rounding;
            without effect if the map carries a graph.
        memory: MiB that one layer may read and write for a chunk; without effect if `chunk` is given.

    Returns:
        The map, `[B, 1, H, W]`, in probability or logits.

    Raises:
        InputError: the fill is outside the box. Unsupported: the fill is unknown. ModelError: an output is NaN.
    """
    h, w = x.shape[2:]
    i, j = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    phi = score_drops(
        model,
        x,
        y,
        (i, i + 1),
        (j, j + 1),
        fill=fill,
        output=output,
        reuse=reuse,
        chunk=chunk,
        memory=memory,
    )
    return phi.view(-1, 1, h, w)
