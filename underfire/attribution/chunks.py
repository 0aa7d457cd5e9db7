"""Many passes for one explanation: how many images go through the model at once, and how their results are joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from underfire.errors import InputError
from underfire.hooks import capture_relu_rule, frozen, uncached, unwrap

Looks = Callable[..., Tensor]
"""`(image, look, *tensors) -> [n, ...]` of places int64 `[n]` in the batch and in the looks."""

MEMORY = 512.0  # MiB for what the layers of one chunk put out: more is no faster
# MiB of what one layer reads and writes. A larger chunk leaves the processor's cache, and its memory is got from the
# system anew for every layer.
_FAST = {"cpu": 24.0}
_COSTS: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[int, int]]] = WeakKeyDictionary()


def chunk_within(model: nn.Module, x: Tensor, memory: float = MEMORY, *, gradients: bool, twice: bool = False) -> int:
    """How many images of the size of `x` may go through `model` at once, so that a stated memory suffices.

    Counted is, where gradients are taken, what is held for the way back, and twice the most that one layer reads and
    writes; else just this most, and fewer images go than would fit where more of them would be slower. One pass of one
    image finds out, once for each size.

    Args:
        model: the model.
        x: images `[B, C, H, W]`; only their size, type and device matter.
        memory: in MiB.
        gradients: whether the passes are followed by a way back.
        twice: whether that is itself differentiated, for which as much again is held.

    Raises:
        InputError: not even one image fits.
    """
    known = _COSTS.setdefault(unwrap(model), {})
    key = (x.shape[1:], x.dtype, x.device)
    if key not in known:
        known[key] = _cost(model, x)
    needed = known[key][gradients] * (2 if twice else 1)
    if memory * 2**20 < needed:
        raise InputError(f"memory of {memory:g} MiB is too small for one image, which takes {needed / 2**20:.1f} MiB")
    room = memory if gradients else fast_memory(memory, x.device)
    return max(int(room * 2**20 // needed), 1)


def fast_memory(memory: float, device: torch.device) -> float:
    """Of the memory, in MiB, what one layer had best read and write in passes without gradients."""
    return min(memory, _FAST.get(device.type, memory))


def _cost(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Bytes that one image takes, without and with gradients."""
    image = x.shape[1:].numel() * x.element_size()
    most, held = image, dict[int, Tensor]()
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def weigh(_: nn.Module, read: tuple[Any, ...], gave: Any) -> None:
        nonlocal most
        most = max(most, sum(t.numel() * t.element_size() for t in (*read, gave) if isinstance(t, Tensor)))

    def hold(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in weights:
            held[t.untyped_storage().data_ptr()] = t
        return t

    with ExitStack() as stack, torch.enable_grad(), frozen(model):
        for module in unwrap(model).modules():
            if next(module.children(), None) is None:
                stack.callback(module.register_forward_hook(weigh).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t))
        uncached(model)(torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=x.device, requires_grad=True))
    return most, sum(t.untyped_storage().nbytes() for t in held.values()) + 2 * most


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
        again = capture_relu_rule(f)
        return torch.cat([checkpoint(again, part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    return torch.cat([f(part) for part in parts])


def sum_in_chunks(f: Looks, looks: int, chunk: int, *tensors: Tensor) -> Tensor:
    """The sum of `f` over all `looks` at every image, `[B, ...]`: looks and images go through together, in even chunks.

    Where a graph is wanted and one chunk is not enough, the passes are made again on the way back instead of being
    held, so that the memory stays that of one chunk.

    Args:
        f: `f(image, look, *tensors) -> [n, ...]` of places int64 `[n]` in the batch and in the looks.
        looks: how many there are.
        chunk: how many go through at once.
        tensors: what `f` may be differentiated by; the first holds the images `[B, ...]`.

    Raises:
        InputError: the chunk is below 1.
    """
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    pairs = torch.arange(len(tensors[0]) * looks, device=tensors[0].device)
    parts = pairs.tensor_split(max(1, -(-len(pairs) // chunk)))
    if len(parts) > 1 and torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return cast(Tensor, _Replayed.apply(capture_relu_rule(f), looks, parts, *tensors))
    return _total(f, looks, parts, tensors)


def _total(f: Looks, looks: int, parts: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    total = None
    for pairs in parts:
        image = pairs // looks
        found = f(image, pairs % looks, *tensors)
        wide = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found  # many small terms
        if total is None:
            total = wide.new_zeros(len(tensors[0]), *found.shape[1:])
        total = total.index_add(0, image, wide)
    assert total is not None
    return total.to(tensors[0].dtype)


class _Replayed(torch.autograd.Function):
    """A sum of passes that holds none of them, and makes them again when its derivative is asked for."""

    @staticmethod
    def forward(ctx: Any, f: Looks, looks: int, parts: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.f, ctx.looks, ctx.parts = f, looks, parts
        return _total(f, looks, parts, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[3:]
        tensors = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
        points = [t for t in tensors if t.requires_grad]
        totals = [torch.zeros_like(point) for point in points]
        for pairs in ctx.parts:
            image = pairs // ctx.looks
            with torch.enable_grad():
                found = ctx.f(image, pairs % ctx.looks, *tensors)
            if not found.requires_grad:  # it does not depend on them
                continue
            slopes = torch.autograd.grad(found, points, grads[0][image].to(found.dtype), materialize_grads=True)
            totals = [total + slope for total, slope in zip(totals, slopes, strict=True)]
        slopes_of = iter(totals)
        return None, None, None, *(next(slopes_of) if w else None for w in wanted)
