"""What the measures that ask a model share: many looks at every image in few passes, fills for removed pixels, chance.

A model is any callable `x -> logits`. It is asked in evaluation mode and without a graph, and left as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import InputError, ModelError
from underfire.measures.arrays import wide
from underfire.transforms.blur import gaussian_blur

Model = Callable[[Tensor], Tensor]
"""Maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`."""
Interpreter = Callable[[Any, Tensor, Tensor], Tensor]
"""`(model, x, y) -> [B, 1, h, w]`."""

FILLS = ("black", "mean", "blur")
# MiB of images in one pass. A CPU is fastest while the layers fit its cache; an accelerator wants to be filled.
_ROOM = {"cpu": 1, "other": 128}


def default_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The generator, or one that always begins alike: without one, a measure is the same every time."""
    return generator if generator is not None else torch.Generator(device).manual_seed(0)


def chunk_of(x: Tensor, chunk: int | None) -> int:
    """How many images go through the model at once: `chunk`, or what suits the device.

    Raises:
        InputError: the chunk is below 1.
    """
    if chunk is None:
        room = _ROOM.get(x.device.type, _ROOM["other"]) << 20
        return max(1, room // max(1, x[0].numel() * x.element_size())) if len(x) else 1
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    return chunk


@contextmanager
def undisturbed(model: object) -> Iterator[None]:
    """Evaluation mode and no graph inside; a module's modes as they were found outside."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise InputError unless x is `[B, C, H, W]` and y int64 `[B]`."""
    if x.dim() != 4:
        raise InputError(f"images must be [B, C, H, W], got {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise InputError(f"classes must be int64 [{len(x)}], one for each image, got {y.dtype} {tuple(y.shape)}")


def ask(
    model: Model, x: Tensor, y: Tensor, looks: int, show: Callable[[Tensor, Tensor], Tensor], chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """What the model says of `looks` variants of every image, all of them folded into one batch, chunk by chunk.

    Args:
        model: maps images to logits `[B, K]`.
        x: images `[B, C, H, W]`.
        y: the class of interest of each, int64 `[B]`.
        looks: how many variants of each image there are.
        show: makes the variants `[n, C, H, W]` from places in the batch and in the looks, each int64 `[n]`.
        chunk: how many variants go through the model at once; None is what suits the device.

    Returns:
        The logit and the probability of class `y`, each `[B, looks]`.

    Raises:
        InputError: images, classes or chunk are wrong. ModelError: the model gives no `[n, K]`, or NaN.
    """
    check_images(x, y)
    if chunk_of(x, chunk) and not len(x) * looks:
        return wide(x).new_zeros(len(x), looks), wide(x).new_zeros(len(x), looks)
    y = y.to(x.device)
    parts: list[Tensor] = []
    with undisturbed(model):
        for pairs in torch.arange(len(x) * looks, device=x.device).split(chunk_of(x, chunk)):
            image, look = pairs // looks, pairs % looks
            logits = model(show(image, look))
            if logits.dim() != 2 or len(logits) != len(pairs):
                raise ModelError(f"the model must give logits [{len(pairs)}, K], got {tuple(logits.shape)}")
            if not parts and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
                raise InputError(f"classes must lie in 0 … {logits.shape[1] - 1}, got {int(y.min())} … {int(y.max())}")
            logits, column = wide(logits), y[image, None]
            parts.append(torch.cat([logits.gather(1, column), logits.softmax(1).gather(1, column)], 1))
    said = torch.cat(parts).reshape(len(x), looks, 2).to(wide(x).dtype)
    if not bool(torch.isfinite(said).all()):
        bad = int((~torch.isfinite(said).all(2)).any(1).sum())
        raise ModelError(f"the model returns NaN or infinite logits for {bad} of {len(x)} images, whole or changed")
    return said[..., 0], said[..., 1]


def filled(x: Tensor, fill: str) -> Tensor:
    """What stands in for removed pixels, shaped like `x`: `"black"`, the image's `"mean"` colour, or its `"blur"`.

    The blur is a Gaussian of 11 pixels and sigma 5 at every size, the numbers of Petsiuk, Das and Saenko, RISE, BMVC
    2018. Their code flattens the kernel and blurs black into the borders; here borders are mirrored.

    Raises:
        InputError: there is no such fill.
    """
    if fill == "black":
        return torch.zeros_like(x)
    if fill == "mean":
        return wide(x).mean((2, 3), keepdim=True).to(x.dtype).expand_as(x)
    if fill == "blur":
        return gaussian_blur(wide(x), sigma=5.0, radius=5).to(x.dtype)
    raise InputError(f"fill {fill!r} is unknown; choices: {', '.join(FILLS)}")
