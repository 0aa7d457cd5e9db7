"""The discrepancy of the explanations of two versions of an image: how far the maps of its classes are apart.

Source: Boopathy et al., Proper Network Interpretability Helps Robustness in Classification, ICML 2020, sections 3 and
4; the weights of the classes are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from underfire.hooks import frozen
from underfire.training.explaining import Explainer

Others = Literal["weighted", "likeliest", "none"]
"""The classes beside the label whose maps count: all, by their probabilities; the most likely one; or none."""


@torch.no_grad()
def compared_classes(model: nn.Module, x: Tensor, y: Tensor, count: int, others: Others) -> list[Tensor]:
    """Return the classes whose maps are compared, int64 `[B]` each: the label first.

    Args:
        model: the classifier, which has a pass only for `"likeliest"`.
        x: the clean images.
        y: labels, int64 `[B]`.
        count: the number of classes.
        others: see `Others`.
    """
    if others == "none":
        return [y]
    if others == "likeliest":
        with frozen(model):
            return [y, without(model(x), y).argmax(1)]
    return [y, *((y + k) % count for k in range(1, count))]


def class_weights(logits: Tensor, classes: Sequence[Tensor], others: Others) -> Tensor:
    """Return the weights of the compared classes, `[B, k]`: 1 for the label, and 1 for all others together.

    Args:
        logits: those of the perturbed images, whose probabilities weigh the other classes; their gradient counts.
        classes: what `compared_classes` returns.
        others: see `Others`.
    """
    if others != "weighted":
        return logits.new_ones(len(logits), len(classes))
    shares = without(logits, classes[0]).softmax(1).gather(1, torch.stack(list(classes[1:]), 1))
    return torch.cat([torch.ones_like(shares[:, :1]), shares], 1)


def without(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logits, with minus infinity for class `y`."""
    return logits.scatter(1, y[:, None], float("-inf"))


def discrepancy(maps: Tensor, maps_adv: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the L1 distances of the maps of every class, `[B]`.

    Args:
        maps: the maps of the clean images, `[B, k, h, w]`.
        maps_adv: those of the perturbed images.
        weights: the weights of the classes, `[B, k]`.
    """
    return (weights * (maps_adv - maps).abs().sum((2, 3))).sum(1)


def discrepancy_at(
    model: nn.Module,
    explain: Explainer,
    x_adv: Tensor,
    logits: Tensor,
    classes: Sequence[Tensor],
    maps: Tensor,
    others: Others,
) -> Tensor:
    """Return the discrepancy of perturbed images from clean ones whose maps are known, `[B]`."""
    return discrepancy(maps, explain.maps(model, x_adv, classes), class_weights(logits, classes, others))
