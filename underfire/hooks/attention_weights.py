"""Read the weights of attention of a transformer, in whatever form the network computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.hooks.attention import PRIMITIVES, explicit_attention
from underfire.hooks.rectifiers import name_of


class AttentionWeights(TorchFunctionMode):
    """Collect the weights of every attention inside the block, `[B, heads, L, S]`, in order of execution.

    Fused kernels and `nn.MultiheadAttention` are computed by their parts (see `hooks.explicit_attention`). A network
    that computes attention itself calls a softmax over the last dimension of `[B, heads, L, S]` or `[B · heads, L, S]`.

    Args:
        x: the images; only their number matters.

    Attributes:
        found: the weights; those of windows have more than B entries in the first dimension.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.images, self.found = len(x), list[Tensor]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        result = explicit_attention(name, func, args, kwargs, self._primitive)
        if name in ("softmax", "_softmax") and isinstance(result, Tensor) and result.dim() in (3, 4):
            return self._noted(result, kwargs.get("dim", args[1] if len(args) > 1 else None))
        return result

    def _primitive(self, name: str, *args: Any) -> Tensor:
        result = PRIMITIVES[name](*args)
        return self._noted(result, -1) if name == "softmax" else result

    def _noted(self, weights: Tensor, dim: int | None) -> Tensor:
        """Collect the weights, and return the weights with which the network continues."""
        if dim not in (-1, weights.dim() - 1) or not self.images or len(weights) % self.images:
            return weights
        each = weights if weights.dim() == 4 else weights.unflatten(0, (self.images, -1))
        self.found.append(each)
        return each if weights.dim() == 4 else each.flatten(0, 1)


def fused_heads(weights: Tensor, fusion: str) -> Tensor:
    """Return the `"mean"`, `"max"` or `"min"` over the heads of weights `[B, heads, L, S]`."""
    reduce: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda t: t.mean(1),
        "max": lambda t: t.amax(1),
        "min": lambda t: t.amin(1),
    }
    return reduce[fusion](weights)


def rows_that_count(score: Tensor, weights: Tensor) -> Tensor:
    """Return the share of every query of the last attention in what the score reads, `[B, 1, L]`.

    A query counts if the score has a gradient with respect to its weights: the class token alone, or all patches that
    are averaged; all queries that count have the same share.

    Args:
        score: one number for each image, `[B]`, in the graph of the weights.
        weights: of the last attention, `[B, heads, L, S]`.
    """
    (gradient,) = torch.autograd.grad(score.sum(), weights, retain_graph=True)
    counts = (gradient.abs().amax((1, 3)) > 0).to(weights.dtype)
    return (counts / counts.sum(1, keepdim=True).clamp_min(1)).unsqueeze(1)
