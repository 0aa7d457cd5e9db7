"""Evaluate a model on many variants of every image, in as few passes as the memory allows.

Perturbation interpreters and the measures of explanations share this engine. A variant is the image with something
removed, hidden or added.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from underfire.attribution.chunks import MEMORY, image_chunk, in_chunks, resolve_chunk
from underfire.attribution.scores import class_score
from underfire.errors import ModelError, Unsupported
from underfire.hooks import folded, frozen

Model = Callable[[Tensor], Tensor]
"""A callable that maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`."""
Interpreter = Callable[[Any, Tensor, Tensor], Tensor]
"""A callable `(model, x, y) -> [B, 1, h, w]` that returns maps."""
Read = Callable[[Tensor, Tensor], Tensor]
"""A callable `(logits [n, K], y [n]) -> [n, ...]` that returns the values to keep of each variant."""

_MANY = 16  # from this number of variants on, folding batch norms saves more time than the pass that finds them takes
OUTPUTS = ("logit", "probability")


def class_output(output: str) -> Read:
    """Return the function that reads the `"logit"` or the `"probability"` of class `y`, `[n]`.

    Raises:
        Unsupported: `output` is neither.
    """
    if output not in OUTPUTS:
        raise Unsupported(f"output {output!r} is unknown; choices: {', '.join(OUTPUTS)}")
    if output == "logit":
        return class_score
    return lambda logits, y: class_score(logits.softmax(1), y)


def logit_and_probability(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit and the probability of class `y`, `[n, 2]`, in float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.stack([class_score(logits, y), class_score(logits.softmax(1), y)], 1)


def evaluate_variants(
    model: Model,
    x: Tensor,
    y: Tensor,
    count: int,
    make: Callable[[Tensor, Tensor], Tensor],
    read: Read,
    *,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Return the values that `read` keeps for `count` variants of every image, `[B, count, ...]`.

    All variants of all images form one batch, which goes through the model chunk by chunk. The result carries a graph
    to `x` if gradients are enabled and `x` requires one; the passes are then repeated in the backward pass. Without
    a graph, batch norms are folded into the convolutions before them (see `hooks.folded`).

    Args:
        count: number of variants of each image.
        make: `(image, variant) -> [n, C, H, W]` returns variants, given the index of the image and the number of the
            variant, each int64 `[n]`. Variant 0 of all images comes first, then variant 1 of all images, and so on.
        read: see `Read`, such as `class_output` or `logit_and_probability`.

    Raises:
        DataError: `y` does not fit the model. ModelError: the model returns no `[n, K]`, or NaN.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    chunk = resolve_chunk(model, x, chunk, memory, gradients=attached)
    forward, images = fast_layout(model), max(len(x), 1)

    def evaluate_chunk(index: Tensor) -> Tensor:
        index = index.to(x.device)
        image, variant = index % images, index // images
        batch = make(image, variant)
        with frozen(model):  # also when this pass is repeated in the backward pass
            logits = forward(batch)
        if logits.dim() != 2 or len(logits) != len(batch):
            raise ModelError(f"the model must give logits [{len(batch)}, K], got {tuple(logits.shape)}")
        class_score(logits[:1].expand(len(x), -1), y)  # check the classes of all images, not only of this chunk
        return read(logits, y[image])

    with nullcontext() if attached or count < _MANY else folded(model, x):
        outputs = in_chunks(evaluate_chunk, len(x) * count, chunk, attached=attached)
    return require_finite_outputs(outputs.unflatten(0, (count, len(x))).transpose(0, 1))


@torch.no_grad()
def class_scores(
    model: Model, x: Tensor, y: Tensor, count: int, make: Callable[[Tensor, Tensor], Tensor], chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the logit and the probability of class `y` for all variants, each `[B, count]`, without a graph.

    If `chunk` is None, `image_chunk` decides, so that no image goes through the model only to measure its memory.
    Arguments and errors are those of `evaluate_variants`.
    """
    chunk = image_chunk(x, chunk)
    outputs = evaluate_variants(model, x, y.to(x.device), count, make, logit_and_probability, chunk=chunk)
    outputs = outputs.to(torch.promote_types(x.dtype, torch.float32))  # the model may compute in another type
    return outputs[..., 0], outputs[..., 1]


def require_finite_outputs(outputs: Tensor) -> Tensor:
    """Return the outputs `[B, count, ...]`; raise ModelError if one is NaN or infinite."""
    bad = int((~torch.isfinite(outputs)).flatten(1).any(1).sum())
    if bad:
        raise ModelError(
            f"the model returns NaN or infinite logits for {bad} of {len(outputs)} images, or variants of them"
        )
    return outputs


def fast_layout(model: Model) -> Model:
    """Return a function that passes images to the model channels last, which is faster, if the model can take them."""
    layouts = [torch.contiguous_format, torch.channels_last]

    def forward(images: Tensor) -> Tensor:
        try:
            return model(images.contiguous(memory_format=layouts[-1]))
        except RuntimeError as error:
            if len(layouts) < 2 or "view size is not compatible" not in str(error):
                raise
            layouts.pop()  # the network calls `view` on an activation, which needs contiguous channels first
            return model(images.contiguous())

    return forward
