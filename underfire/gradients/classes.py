"""Compute the gradients of several logits: the rows of the Jacobian that DeepFool, FAB and JSMA need."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor, autograd, nn

from underfire.errors import Unsupported
from underfire.validate import per_sample

Pairs = Callable[[Tensor], tuple[Tensor, Tensor]]


def class_gradients(
    model: nn.Module, x: Tensor, classes: Tensor, against: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the logits, and the gradients of some of them: one forward pass, and one backward pass for each class.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`, every row independently of the others.
        x: images.
        classes: the classes of each image whose logits are differentiated, int64 `[B, k]`.
        against: a class of each image, int64 `[B]`, whose logit is subtracted first; None subtracts nothing.

    Returns:
        Logits `[B, K]` and gradients `[B, k, C, H, W]`, both without a graph.

    Raises:
        Unsupported: the logits are not differentiable with respect to the image.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        picked = logits.gather(1, classes)
        if against is not None:
            picked = picked - logits.gather(1, against[:, None])
        return logits.detach(), _rows(picked, x)


def sum_gradients(model: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits `[B, K]`, and the gradients `[B, k, ...]` of `k` weighted sums of them, `weights` `[B, k, K]`.

    Costs one forward pass, and one backward pass for each sum.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        return logits.detach(), _rows(torch.einsum("bkc,bc->bk", weights, logits.to(weights.dtype)), x)


def _rows(values: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of every column of `values` `[B, k]` with respect to `x`, `[B, k, ...]`."""
    _differentiable(values)
    sums = [column.sum() for column in values.unbind(1)]
    rows = [autograd.grad(v, x, retain_graph=v is not sums[-1], materialize_grads=True)[0] for v in sums]
    return torch.stack(rows, dim=1) if rows else x.new_zeros(len(x), 0, *x.shape[1:])


def logit_gradients(model: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits `[B, K]`, and the gradient of their weighted sum with `weights` `[B, K]`: one pass each."""
    logits, gradients = sum_gradients(model, x, weights[:, None])
    return logits, gradients[:, 0]


def nearest_boundary(model: nn.Module, x: Tensor, pairs: Pairs, order: float) -> tuple[Tensor, Tensor]:
    """Return the logit difference of the nearest class boundary of the linearised network, and its gradient.

    Costs one forward pass, and one backward pass for each boundary; two gradients are in memory at a time.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`, every row independently of the others.
        x: images.
        pairs: maps the logits to the classes beyond each boundary, `[B, k]`, and the class on this side, `[B]`.
        order: order of the norm of gradients, the dual of the norm of distances.

    Returns:
        The logit of the class beyond the boundary minus that of the class on this side, `[B]`, and the gradient of
        this difference, `[B, C, H, W]`, both without a graph.

    Raises:
        Unsupported: the logits are not differentiable with respect to the image.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        _differentiable(logits)
        beyond, here = pairs(logits.detach())
        differences = logits.gather(1, beyond) - logits.gather(1, here[:, None])
    value, gradient, distance = differences[:, 0].detach(), torch.zeros_like(x), x.new_full((len(x),), inf)
    # keep the boundary with the smallest distance |f| / |grad f| so far
    for i in range(beyond.shape[1]):
        last = i + 1 == beyond.shape[1]
        (slope,) = autograd.grad(differences[:, i].sum(), x, retain_graph=not last)
        f = differences[:, i].detach()
        length = torch.linalg.vector_norm(slope.flatten(1), ord=order, dim=1)
        far = f.abs() / length.clamp_min(torch.finfo(length.dtype).tiny)
        nearer = (far < distance) & (length > 0)
        distance, value = torch.where(nearer, far, distance), torch.where(nearer, f, value)
        gradient = torch.where(per_sample(nearer, slope), slope, gradient)
    return value, gradient.detach()


def _differentiable(logits: Tensor) -> None:
    """Raise Unsupported unless the logits carry a graph to the image."""
    if not logits.requires_grad:
        raise Unsupported("the model has no gradient with respect to its input; use a black-box attack, such as square")
