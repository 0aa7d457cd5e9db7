"""LayerCAM (Jiang et al., Exploring Hierarchical Class Activation Maps for Localization, TIP 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from underfire.attribution.feature_maps import positive_part, resized, scaled, weighted_maps
from underfire.catalog import card

GAMMA = 2.0  # of the paper


@card(
    "interpreter",
    paper="Jiang, Zhang, Hou, Cheng and Wei, LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, "
    "TIP 2021",
    family="representation",
    differentiable=True,
    second_order=False,
)
def layer_cam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Sum feature maps, each place weighted by the positive part of its own gradient, so that early layers work too.

    The map is `ReLU(Σ_k ReLU(g^k) A^k)` (equations 6 and 7 of the paper).

    Args:
        layer: one layer or several. Each map `M` of several becomes `tanh(2 M / max M)` (equation 9), is resized to the
            largest grid, and the largest value at each place counts; the paper scales the early layers alone so. None
            is the last spatial layer (see `grad_cam`).

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative; for a single layer in logits.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no
            grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return positive_part(gradient)

    return weighted_maps(model, x, y, layer, grid, weigh, join=fused)


def fused(maps: Sequence[Tensor]) -> Tensor:
    """Return the largest value of several scaled maps at each place of the largest grid; a single map stays as it is.

    Args:
        maps: each `[B, 1, h, w]`, not negative.
    """
    if len(maps) == 1:
        return maps[0]
    size = [max(m.shape[side] for m in maps) for side in (2, 3)]
    return torch.stack([resized((GAMMA * scaled(m)).tanh(), size) for m in maps]).amax(0)
