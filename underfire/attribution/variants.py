"""What methods share that change an image many times and ask the model about every change."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, chunk_within, in_chunks
from underfire.attribution.scores import class_score
from underfire.errors import InputError, ModelError, Unsupported
from underfire.hooks import frozen
from underfire.transforms.blur import gaussian_blur

FILLS = ("black", "mean", "blur")
OUTPUTS = ("logit", "probability")


def fill_image(x: Tensor, fill: str | float) -> Tensor:
    """What stands in for removed pixels, shaped like `x`.

    Args:
        x: images `[B, C, H, W]`.
        fill: `"black"`; `"mean"`, the mean colour of each image; `"blur"`, the image under a Gaussian of 10 pixels at a
            side of 224; or a number in `[0, 1]`, one grey for all.

    Raises:
        Unsupported: there is no such fill. InputError: the number is outside the box.
    """
    if isinstance(fill, str):
        if fill not in FILLS:
            raise Unsupported(f"fill {fill!r} is unknown; choices: {', '.join(FILLS)}, or a number")
        if fill == "mean":
            return x.mean((2, 3), keepdim=True).expand_as(x)
        return gaussian_blur(x, 10 * min(x.shape[2:]) / 224) if fill == "blur" else torch.zeros_like(x)
    if not 0 <= fill <= 1:
        raise InputError(f"fill must be {', '.join(FILLS)} or a number in [0, 1], got {fill}")
    return torch.full_like(x, fill)


def class_answer(logits: Tensor, y: Tensor, output: str) -> Tensor:
    """The `"logit"` or the `"probability"` of class `y` of every sample, `[B]`.

    Raises:
        Unsupported: `output` is neither. DataError: `y` does not fit the logits.
    """
    if output not in OUTPUTS:
        raise Unsupported(f"output {output!r} is unknown; choices: {', '.join(OUTPUTS)}")
    return class_score(logits if output == "logit" else logits.softmax(1), y)


def fast_layout(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The model, given images in the layout in which convolutions are faster, unless it cannot take it."""
    layouts = [torch.contiguous_format, torch.channels_last]

    def ask(images: Tensor) -> Tensor:
        try:
            return model(images.contiguous(memory_format=layouts[-1]))
        except RuntimeError as error:
            if len(layouts) < 2 or "view size is not compatible" not in str(error):
                raise
            layouts.pop()  # the network makes a `view` of an activation, which only the first allows
            return model(images.contiguous())

    return ask


def answers(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    looks: int,
    show: Callable[[Tensor, Tensor], Tensor],
    *,
    output: str,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """What the model says of `looks` variants of every image, all of them folded into one batch, chunk by chunk.

    With a graph where gradients are enabled and `x` requires one.

    Args:
        model: maps images to logits `[B, K]`.
        x: images `[B, C, H, W]`.
        y: the class of each, int64 `[B]`.
        looks: how many variants of each image there are.
        show: makes variants `[n, C, H, W]` from places in the batch and in the looks, each int64 `[n]`; one look at all
            images comes before the next look.
        output: `"logit"` or `"probability"` of the class.
        chunk: how many variants go through the model at once; None is what `memory` allows and suits the device.
        memory: see `chunk_within`.

    Returns:
        The answers, `[B, looks]`.

    Raises:
        ModelError: one is NaN or infinite.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    if chunk is None:
        chunk = chunk_within(model, x, memory, gradients=attached)

    fast = fast_layout(model)

    def ask(index: Tensor) -> Tensor:
        index = index.to(x.device)
        image, look = index % max(len(x), 1), index // max(len(x), 1)
        shown = show(image, look)
        with frozen(model):  # also when a pass is made again on the way back, which is later
            logits = fast(shown)
        class_score(logits[:1].expand(len(x), -1), y)  # raises where y does not fit, which a part of it might not
        return class_answer(logits, y[image], output)

    found = in_chunks(ask, len(x) * looks, chunk, attached=attached).view(looks, len(x)).T
    return finite(found)


def finite(found: Tensor) -> Tensor:
    """The answers `[B, looks]`, if they are numbers.

    Raises:
        ModelError: one is NaN or infinite.
    """
    bad = int((~torch.isfinite(found)).any(1).sum())
    if bad:
        raise ModelError(f"the model returns NaN or infinite logits for {bad} of {len(found)} images, or parts of them")
    return found
