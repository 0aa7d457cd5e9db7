"""Compute attention by its parts, whether the network calls a fused kernel or the function behind a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: The parts of attention by name.
PRIMITIVES: dict[str, Callable[..., Tensor]] = {"matmul": torch.matmul, "softmax": F.softmax, "linear": F.linear}
Primitive = Callable[..., Tensor]
"""A function `(name, *args)` that computes a part: `"matmul"`, `"softmax"` (with its dimension) or `"linear"`."""


def explicit_attention(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], primitive: Primitive
) -> Any:
    """Return the result of a call; that of attention is computed by its parts.

    Two functions are attention: `scaled_dot_product_attention`, and `multi_head_attention_forward`, which is behind
    `nn.MultiheadAttention`. They stay whole with dropout, or with keys and values that are added to those of the input.

    Args:
        name: the name of the function.
        func: computes the result as a whole.
        primitive: computes every product, softmax and linear layer in it.
    """
    if name == "scaled_dot_product_attention":
        given = dict(zip(_KERNEL, args, strict=False)) | kwargs
        if not given.get("dropout_p"):
            query, key, value = (given.pop(which) for which in ("query", "key", "value"))
            return _attend(query, key, value, primitive, **given)[0]
    if name == "multi_head_attention_forward":
        given = dict(zip(_HEADS, args, strict=False)) | kwargs
        unusual = ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v")
        dropout = given["dropout_p"] and given.get("training", True)
        if given["query"].dim() == 3 and not dropout and not any(given.get(k) not in (None, False) for k in unusual):
            return _of_heads(given, primitive)
    return func(*args, **kwargs)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    primitive: Primitive,
    *,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the result of attention `[..., L, d]` and its weights `[..., L, S]`, over the last two dimensions."""
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = primitive("matmul", query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask.clamp_min(torch.finfo(scores.dtype).min)
    weights = primitive("softmax", scores, -1)
    return primitive("matmul", weights, value), weights


def _of_heads(given: dict[str, Any], primitive: Primitive) -> tuple[Tensor, Tensor | None]:
    """Return the result of `multi_head_attention_forward`: `[L, B, D]`, and the weights if `need_weights` is true."""
    inputs, heads = [given[which] for which in ("query", "key", "value")], given["num_heads"]
    separate = [given.get(f"{which}_proj_weight") for which in "qkv"]
    matrices = separate if given.get("use_separate_proj_weight") else given["in_proj_weight"].chunk(3)
    biases = given["in_proj_bias"].chunk(3) if given.get("in_proj_bias") is not None else (None,) * 3
    parts = [primitive("linear", *each) for each in zip(inputs, matrices, biases, strict=True)]
    q, k, v = (t.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for t in parts)  # [B, heads, N, d]
    masks = []
    if (mask := given.get("attn_mask")) is not None:
        masks.append(_added(mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask, q))
    if (padding := given.get("key_padding_mask")) is not None:
        masks.append(_added(padding, q)[:, None, None])
    mask = sum(masks[1:], masks[0]) if masks else None
    result, weights = _attend(q, k, v, primitive, attn_mask=mask)
    joined = result.permute(2, 0, 1, 3).flatten(2)
    out = primitive("linear", joined, given["out_proj_weight"], given["out_proj_bias"])
    if not given.get("need_weights", True):
        return out, None
    return out, weights.mean(1) if given.get("average_attn_weights", True) else weights


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask of `nn.MultiheadAttention`, true where attention is forbidden, as numbers to add to the scores."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, torch.finfo(like.dtype).min)


_KERNEL = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_HEADS = (
    "query",
    "key",
    "value",
    "embed_dim_to_check",
    "num_heads",
    "in_proj_weight",
    "in_proj_bias",
    "bias_k",
    "bias_v",
    "add_zero_attn",
    "dropout_p",
    "out_proj_weight",
    "out_proj_bias",
    "training",
    "key_padding_mask",
    "need_weights",
    "attn_mask",
)
