"""Attention rollout (Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.gradients import differentiable_input
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache, last_spatial_layer, layout_of, refuse_compiled
from underfire.hooks.attention_weights import AttentionWeights, fused_heads, rows_that_count
from underfire.validate import check_choice, require_finite

FUSIONS = ("mean", "max", "min")


@card(
    "interpreter",
    paper="Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020",
    family="representation",
    differentiable=True,
    second_order=False,
    models="transformer",
)
def attention_rollout(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    fusion: str = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Multiply the attention of all blocks of a transformer, so that the output attends to the patches of the image.

    `A_l` is the attention of block l with its heads fused, `Â_l = r I + (1 - r) A_l` with every row divided by its sum,
    and the rollout `Â_L ⋯ Â_1`. The map is the row of what the classifier reads: the class token, the mean of the
    patches that are averaged, or the query that pools them. The map is the same for all classes.

    Args:
        fusion: how heads are fused: `"mean"` (the paper), `"max"` or `"min"`.
        discard: the share of the weights of every block, the smallest, that become zero.
        residual: r, the share of the residual connection.
        grid: rows and columns of the patches; None finds them.

    Returns:
        The map, `[B, 1, h, w]`, one value for each patch, in shares of the attention.

    Raises:
        InputError: an option is wrong. ModelError: the attention is NaN. Unsupported: the model is not a transformer
            whose blocks all attend over the same tokens, or its tokens have no grid that can be found.
    """
    refuse_compiled(model, "attention_rollout")
    check_choice(FUSIONS, fusion=fusion)
    if not (0 <= discard < 1 and 0 <= residual < 1):
        raise InputError(f"discard and residual must be at least 0 and below 1, got {discard} and {residual}")
    with differentiable_input(model, x) as (point, attached), bypass_cache(model):
        layout = layout_of(model, point, last_spatial_layer(model, point, grid), grid)
        with AttentionWeights(point) as weights:
            score = class_score(model(point), y)
        tokens = layout.extra + layout.grid[0] * layout.grid[1]
        if not len(x):
            return x.new_zeros(0, 1, *layout.grid)
        blocks = same_tokens(weights.found, len(x), tokens if layout.kind == "tokens" else None)
        row = rows_that_count(score, blocks[-1])
        if blocks[-1].shape[2] == 1:  # one query pools the tokens
            row = fused_heads(blocks.pop(), fusion)
        for attention in reversed(blocks):
            row = row @ mixed(fused_heads(attention, fusion), discard, residual)
        shown = require_finite(row, "the attention")[:, :, layout.extra :].unflatten(2, layout.grid).to(x.dtype)
    return shown if attached else shown.detach()


def same_tokens(found: list[Tensor], images: int, tokens: int | None) -> list[Tensor]:
    """Return the weights `[B, heads, N, N]` of all blocks; of the last, they may be `[B, heads, 1, N]`.

    Args:
        found: weights of attention.
        images: B.
        tokens: N, or None if the last spatial layer has no tokens.

    Raises:
        Unsupported: there are none, or other weights.
    """
    shapes = [(t.shape[0], *t.shape[2:]) for t in found]
    square = (images, tokens, tokens)
    if tokens is None or not shapes or any(s != square for s in shapes[:-1]) or shapes[-1][::2] != square[::2]:
        has = f"attention of {' and '.join(sorted({f'{s[1]} x {s[2]}' for s in shapes}))} tokens" if shapes else "none"
        raise Unsupported(
            f"attention_rollout needs a transformer whose blocks all attend over the same tokens, and this model has "
            f"{has}; use grad_cam"
        )
    if shapes[-1] not in (square, (images, 1, tokens)):
        raise Unsupported(
            f"the last attention has {shapes[-1][1]} queries, not one for each of {tokens} tokens; use grad_cam"
        )
    return list(found)


def mixed(attention: Tensor, discard: float, residual: float) -> Tensor:
    """Return `Â`, `[B, N, N]`, of the fused attention of a block."""
    count = int(discard * attention.shape[1:].numel())
    if count:
        least = attention.flatten(1).kthvalue(count, 1).values[:, None, None]
        attention = attention * (attention > least)
    total = residual * torch.eye(attention.shape[1]).to(attention) + (1 - residual) * attention
    return total / total.sum(2, keepdim=True)
