"""Class activation mapping (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.hooks import activations, frozen, layout_of, pooled_head
from underfire.validate import require_finite


@card(
    "interpreter",
    paper="Zhou, Khosla, Lapedriza, Oliva and Torralba, Learning Deep Features for Discriminative Localization, "
    "CVPR 2016",
    family="representation",
    differentiable=True,
    second_order=False,
)
def cam(model: nn.Module, x: Tensor, y: Tensor, *, grid: tuple[int, int] | None = None) -> Tensor:
    """Sum the feature maps before global average pooling, by the weights of the last layer for class `y`; signed.

    The mean of the map plus the bias of the class is the logit. The model must end in global average pooling (or the
    mean of a transformer's tokens) and one linear layer.

    Returns:
        The map, `[B, 1, h, w]`, at the size of those feature maps, in logits.

    Raises:
        Unsupported: the model does not end in average pooling and one linear layer. ModelError: features are NaN.
    """
    with frozen(model):
        name, weight, _ = pooled_head(model, x, grid)
        logits, outputs = activations(model, x, [name])
        class_score(logits, y)  # check the classes
        features = layout_of(model, x, name, grid).maps(require_finite(outputs[name], f"the output of layer {name!r}"))
        weighted = torch.einsum("bk,bkhw->bhw", weight[y].to(features.dtype), features)
    return weighted.unsqueeze(1).to(x.dtype)
