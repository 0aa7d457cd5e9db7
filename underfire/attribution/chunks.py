"""Split a large batch into chunks whose passes fit a stated memory, and join the results."""

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
from underfire.hooks import capture_relu_rule, frozen, is_compiled, readable_layers, uncached, unwrap
from underfire.model import unwatched

OfVariants = Callable[..., Tensor]
"""A function `(image, variant, *tensors) -> [n, ...]`; `image` and `variant` are indices, int64 `[n]`."""

MEMORY = 512.0  # MiB that one chunk may take by default; larger chunks are not faster
# MiB that one layer should read and write in a pass without gradients. Larger chunks do not fit into the CPU's cache,
# and every layer allocates new memory for them.
_FAST = {"cpu": 24.0}
# MiB with which a layer is faster still, if a chunk then has at least `_FEW` images: for the layers of small images.
_FASTEST, _FEW = {"cpu": 6.0}, 6
# MiB of images in one chunk if the model is not an `nn.Module`, so that the memory of its layers cannot be measured.
_IMAGES = {"cpu": 1.0, "other": 128.0}
# For each model, and each shape, dtype and device of an image: the bytes that one image takes, see `_cost`.
_COSTS: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[int, int]]] = WeakKeyDictionary()


def resolve_chunk(
    model: object, x: Tensor, chunk: int | None, memory: float = MEMORY, *, gradients: bool, twice: bool = False
) -> int:
    """Return `chunk`, or if it is None, how many images may go through the model at once in `memory` MiB.

    If the model is not an `nn.Module`, or was compiled by `torch.jit`, its memory cannot be measured, and `image_chunk`
    decides.

    Args:
        x: images; only their size, dtype and device matter.
        gradients: whether a backward pass follows.
        twice: whether that backward pass is itself differentiated, which takes twice the memory.

    Raises:
        InputError: the chunk is below 1, or the memory is too small for one image.
    """
    if chunk is None and isinstance(model, nn.Module) and not is_compiled(model):
        return chunk_within(model, x, memory, gradients=gradients, twice=twice)
    return image_chunk(x, chunk)


def image_chunk(x: Tensor, chunk: int | None = None) -> int:
    """Return `chunk`, or if it is None, how many images a model of unknown memory may get at once on this device.

    Raises:
        InputError: the chunk is below 1.
    """
    if chunk is None:
        room = _IMAGES.get(x.device.type, _IMAGES["other"]) * 2**20
        return max(1, int(room // max(1, x.shape[1:].numel() * x.element_size())))
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    return chunk


def chunk_within(model: nn.Module, x: Tensor, memory: float = MEMORY, *, gradients: bool, twice: bool = False) -> int:
    """Return how many images of the size of `x` fit into `memory` MiB, measured by one pass of one image.

    Without gradients, an image takes as much memory as the largest layer reads and writes; the number of images stays
    below what fits if a larger chunk would be slower (see `fast_memory`). With gradients, an image takes the memory of
    all tensors that are saved for the backward pass, plus twice that of the largest layer. The measurement is kept for
    each model and each shape, dtype and device of images.

    Raises:
        InputError: the memory is too small for one image.
    """
    known = _COSTS.setdefault(unwrap(model, into_defenses=False), {})
    key = (x.shape[1:], x.dtype, x.device)
    if key not in known:
        known[key] = _cost(model, x)
    needed = known[key][gradients] * (2 if twice else 1)
    if memory * 2**20 < needed:
        raise InputError(f"memory of {memory:g} MiB is too small for one image, which takes {needed / 2**20:.1f} MiB")
    room = memory if gradients else fast_memory(memory, x.device)
    most = max(int(room * 2**20 // needed), 1)
    if gradients or x.device.type not in _FASTEST:
        return most
    return min(most, max(int(_FASTEST[x.device.type] * 2**20 // needed), _FEW))


def fast_memory(memory: float, device: torch.device) -> float:
    """Return how many MiB, at most `memory`, one layer should read and write in a fast pass without gradients."""
    return min(memory, _FAST.get(device.type, memory))


def _cost(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Return the bytes that one image takes in a pass without gradients, and in a pass with them."""
    image = x.shape[1:].numel() * x.element_size()
    largest, saved = image, dict[int, Tensor]()
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def weigh(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(t.numel() * t.element_size() for t in (*inputs, output) if isinstance(t, Tensor)))

    def save(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in weights:
            saved[t.untyped_storage().data_ptr()] = t
        return t

    # one pass: hooks weigh every layer without children, autograd reports what it saves
    with ExitStack() as stack, torch.enable_grad(), frozen(model), unwatched():
        for _, module in (("", unwrap(model)), *readable_layers(model)):
            if next(module.children(), None) is None:
                stack.callback(module.register_forward_hook(weigh).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(save, lambda t: t))
        uncached(model)(torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=x.device, requires_grad=True))
    return largest, sum(t.untyped_storage().nbytes() for t in saved.values()) + 2 * largest


def in_chunks(f: Callable[[Tensor], Tensor], total: int, chunk: int, *, attached: bool = False) -> Tensor:
    """Apply `f` to the indices 0 … total - 1, `chunk` indices at a time, and join the results along dimension 0.

    With `attached`, the result carries a graph. Every chunk is then computed again in the backward pass, so that the
    memory stays that of one chunk.

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


def sum_in_chunks(f: OfVariants, count: int, chunk: int, *tensors: Tensor) -> Tensor:
    """Return the sum of `f` over `count` variants of every image, `[B, ...]`, computed in chunks of equal size.

    If the result carries a graph and one chunk is not enough, every chunk is computed again in the backward pass, so
    that the memory stays that of one chunk.

    Args:
        f: see `OfVariants`.
        count: number of variants of each image.
        chunk: how many variants go through `f` at once.
        tensors: passed to `f`, and differentiated where they require a gradient; the first holds the images `[B, ...]`.

    Raises:
        InputError: the chunk is below 1.
    """
    if chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    pairs = torch.arange(len(tensors[0]) * count, device=tensors[0].device)
    parts = pairs.tensor_split(max(1, -(-len(pairs) // chunk)))
    if len(parts) > 1 and torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return cast(Tensor, _RepeatedSum.apply(capture_relu_rule(f), count, parts, *tensors))
    return _sum(f, count, parts, tensors)


def _sum(f: OfVariants, count: int, parts: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum over variants of every image; each part is a chunk of numbers `image * count + variant`."""
    total = None
    for pairs in parts:
        image = pairs // count
        values = f(image, pairs % count, *tensors)
        wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values  # many small terms
        if total is None:
            total = wide.new_zeros(len(tensors[0]), *values.shape[1:])
        total = total.index_add(0, image, wide)
    assert total is not None
    return total.to(tensors[0].dtype)


class _RepeatedSum(torch.autograd.Function):
    """A sum over chunks that saves no chunk for the backward pass, which computes each of them again."""

    @staticmethod
    def forward(ctx: Any, f: OfVariants, count: int, parts: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.f, ctx.count, ctx.parts = f, count, parts
        return _sum(f, count, parts, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[3:]
        tensors = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
        leaves = [t for t in tensors if t.requires_grad]
        totals = [torch.zeros_like(leaf) for leaf in leaves]
        for pairs in ctx.parts:
            # repeat the forward pass of this chunk
            image = pairs // ctx.count
            with torch.enable_grad():
                values = ctx.f(image, pairs % ctx.count, *tensors)
            if not values.requires_grad:  # it does not depend on the tensors
                continue
            # backward pass of this chunk
            slopes = torch.autograd.grad(values, leaves, grads[0][image].to(values.dtype), materialize_grads=True)
            totals = [total + slope for total, slope in zip(totals, slopes, strict=True)]
        remaining = iter(totals)
        return None, None, None, *(next(remaining) if w else None for w in wanted)
