"""Many passes for one explanation: how many images go through the model at once, and how their results are joined."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from underfire.errors import InputError
from underfire.hooks import frozen, inner

MEMORY = 512.0  # MiB for what the layers of one chunk put out: more is no faster
# MiB of what one layer reads and writes. A larger chunk leaves the processor's cache, and its memory is got from the
# system anew for every layer.
_FAST = {"cpu": 24.0}
_COSTS: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[int, int]]] = WeakKeyDictionary()


def chunk_within(model: nn.Module, x: Tensor, memory: float = MEMORY, *, gradients: bool) -> int:
    """How many images of the size of `x` may go through `model` at once, so that a stated memory suffices.

    Counted is what the layers put out: all of it, twice, where gradients are taken; else the most that one layer reads
    and writes, and fewer images go than would fit where more of them would be slower. One pass of one image finds out,
    once for each size.

    Args:
        model: the model.
        x: images `[B, C, H, W]`; only their size, type and device matter.
        memory: in MiB.
        gradients: whether the passes are followed by a way back.

    Raises:
        InputError: not even one image fits.
    """
    known = _COSTS.setdefault(inner(model), {})
    key = (x.shape[1:], x.dtype, x.device)
    if key not in known:
        known[key] = _cost(model, x)
    needed = known[key][gradients]
    if memory * 2**20 < needed:
        raise InputError(f"memory of {memory:g} MiB is too small for one image, which takes {needed / 2**20:.1f} MiB")
    room = memory if gradients else fast(memory, x.device)
    return max(int(room * 2**20 // needed), 1)


def fast(memory: float, device: torch.device) -> float:
    """Of the memory, in MiB, what one layer had best read and write in passes without gradients."""
    return min(memory, _FAST.get(device.type, memory))


def _cost(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Bytes that one image takes, without and with gradients."""
    image = x[0].numel() * x.element_size()
    total, most = image, image

    def weigh(_: nn.Module, read: tuple[Any, ...], gave: Any) -> None:
        nonlocal total, most
        sizes = [t.numel() * t.element_size() for t in (*read, gave) if isinstance(t, Tensor)]
        most = max(most, sum(sizes))
        total += sizes[-1] if isinstance(gave, Tensor) else 0

    with ExitStack() as stack, torch.no_grad(), frozen(model):
        for module in inner(model).modules():
            if next(module.children(), None) is None:
                stack.callback(module.register_forward_hook(weigh).remove)
        model(torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=x.device))
    return most, 2 * total


def in_chunks(f: Callable[[Tensor], Tensor], total: int, chunk: int, *, attached: bool = False) -> Tensor:
    """`f` of the numbers below `total`, `chunk` of them at a time, joined along the first dimension.

    Where a graph is wanted (`attached`), the passes inside `f` are made again on the way back instead of being held, so
    that the memory stays that of one chunk.

    Raises:
        InputError: the chunk is below 1.
    """
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    parts = torch.arange(total).split(chunk)
    if attached and len(parts) > 1:
        return torch.cat([checkpoint(f, part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    return torch.cat([f(part) for part in parts])
