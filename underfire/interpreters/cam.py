"""Class activation mapping (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.scores import class_score, require_finite
from underfire.catalog import card
from underfire.hooks import activations, frozen, layout_of, pooled_head


@card(
    "interpreter",
    paper="Zhou, Khosla, Lapedriza, Oliva and Torralba, Learning Deep Features for Discriminative Localization, "
    "CVPR 2016",
    family="representation",
    differentiable=True,
    second_order=False,
)
def cam(model: nn.Module, x: Tensor, y: Tensor, *, grid: tuple[int, int] | None = None) -> Tensor:
    """The feature maps before global average pooling, weighted by the last layer's weights of class `y`; signed.

    The map's mean plus the class's bias is the logit (its completeness).

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`; ends in global average pooling and a linear
            layer.
        x: images.
        y: the class to explain, int64 `[B]`.
        grid: rows and columns of a transformer's tokens, where their mean is what the linear layer reads; None finds
            them.

    Returns:
        The map, `[B, 1, h, w]`, at the size of those feature maps, in logits.

    Raises:
        Unsupported: the model does not end so. ModelError: its features are NaN.
    """
    with frozen(model):
        name, weight, _ = pooled_head(model, x, grid)
        logits, outputs = activations(model, x, [name])
        class_score(logits, y)  # raises where y does not fit
        features = layout_of(model, x, name, grid).maps(require_finite(outputs[name], f"what layer {name!r} gives"))
        weighted = torch.einsum("bk,bkhw->bhw", weight.detach()[y].to(features.dtype), features)
    return weighted.unsqueeze(1).to(x.dtype)
