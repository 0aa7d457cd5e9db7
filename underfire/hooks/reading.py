"""Read the outputs of the layers of a network, and share one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from underfire.errors import ModelError, Unsupported
from underfire.hooks.applied import APPLIED, AVERAGED, AppliedFunctions
from underfire.hooks.networks import find_layer, remove_at_exit, version
from underfire.hooks.second_derivatives import twice_differentiable


class _Memo:
    """The forward pass that `shared_forward` remembers, and what the passes so far have shown about the network.

    Attributes:
        wanted: the names of the layers that every pass reads.
        hard_sigmoids: whether the network may call a hard sigmoid; true until a pass with a graph has called none.
        twice: whether a gradient of a pass may be differentiated again.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], twice: bool = True) -> None:
        self.original, self.twice = forward, twice
        self.wanted: set[str] = set()
        self.hard_sigmoids = True
        self.bypassed = False
        self.forget()

    def forget(self) -> None:
        self.x: Tensor | None = None
        self.key: tuple[int, bool] | None = None
        self.logits: Tensor | None = None
        self.outputs: dict[str, Tensor] = {}

    def holds(self, x: Tensor) -> bool:
        return self.x is x and self.key == (version(x), torch.is_grad_enabled())


_MEMOS: WeakKeyDictionary[nn.Module, _Memo] = WeakKeyDictionary()


@contextmanager
def shared_forward(model: nn.Module, *, begin: bool = True, twice: bool = True) -> Iterator[Callable[[], None]]:
    """Remember the last forward pass inside the block: calls of `model` and `activations` on the same tensor share it.

    An attack whose objective needs both the logits and an explanation then needs one pass in each step. A layer that
    `activations` read once is read in every later pass too. Yields a function that forgets the remembered pass and
    frees its memory.

    Args:
        begin: if false, passes are shared only if they are in an outer block; no other call would share them.
        twice: whether a gradient of a pass may be differentiated again; passes are faster if not.
    """
    if model in _MEMOS:  # an outer context shares the passes already
        yield _MEMOS[model].forget
        return
    if not begin or not hasattr(model, "forward"):  # a plain function's passes are never shared
        yield lambda: None
        return
    memo = _Memo(model.forward, twice)
    own = vars(model).get("forward")  # a replaced forward function is restored at the end

    def forward(x: Tensor) -> Tensor:
        if memo.bypassed:
            return memo.original(x)
        if not memo.holds(x):
            read(model, memo.original, x, tuple(memo.wanted), memo)
        assert memo.logits is not None
        return memo.logits

    _MEMOS[model] = memo
    model.__dict__["forward"] = forward
    try:
        yield memo.forget
    finally:
        del model.__dict__["forward"]
        if own is not None:
            model.__dict__["forward"] = own
        del _MEMOS[model]


@contextmanager
def bypass_cache(model: nn.Module) -> Iterator[None]:
    """Run the passes inside the block without using or changing the pass that `shared_forward` remembers."""
    memo = _MEMOS.get(model)
    if memo is None:
        yield
        return
    before, memo.bypassed = memo.bypassed, True
    try:
        yield
    finally:
        memo.bypassed = before


def shares_passes(model: nn.Module) -> bool:
    """Return whether passes are remembered here: inside the block of `shared_forward`."""
    return model in _MEMOS and not _MEMOS[model].bypassed


def layers_read(model: nn.Module) -> frozenset[str]:
    """Return the layers that every pass inside the block of `shared_forward` reads; none outside."""
    memo = _MEMOS.get(model)
    return frozenset() if memo is None else frozenset(memo.wanted)


def uncached(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model's own forward function, whose passes `shared_forward` does not remember."""
    memo = _MEMOS.get(model)
    return model if memo is None else memo.original


def read(
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    names: Sequence[str],
    memo: _Memo | None = None,
    *,
    begin: bool = False,
    into: dict[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run one pass and return the logits and the outputs of the layers `names`.

    Args:
        forward: the function that maps `x` to logits.
        memo: where the pass is remembered; None remembers nothing.
        begin: let the graph begin at these layers, as in `forward_from_layers`.
        into: takes the outputs as the layers return them, and keeps no part of their memory, so that the network gets
            no copies; None is a dictionary that keeps them.
    """
    twice = x.requires_grad and torch.is_grad_enabled() and (memo is None or memo.twice)
    hard_sigmoids = memo is None or memo.hard_sigmoids
    with ExitStack() as stack:
        seen = stack.enter_context(twice_differentiable(hard_sigmoids)) if twice else None
        outputs = dict[str, Tensor]() if into is None else into
        if names:
            stack.enter_context(reading(model, names, begin, outputs, copies=into is None))
        logits = forward(x)
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelError(f"layer {missing[0]!r} took no part in the forward pass")
    if memo is not None:
        memo.hard_sigmoids = hard_sigmoids if seen is None else seen.hard_sigmoids
        memo.x, memo.key, memo.logits, memo.outputs = x, (version(x), torch.is_grad_enabled()), logits, outputs
    return logits, outputs


@contextmanager
def reading(
    model: nn.Module, names: Sequence[str], begin: bool, outputs: dict[str, Tensor], *, copies: bool = True
) -> Iterator[None]:
    """Put the outputs of the layers `names` into `outputs` in every pass inside the block; see `read`.

    Args:
        copies: whether the network gets copies, so that a later in-place operation does not overwrite the outputs.
    """
    applied = _AppliedResults(outputs, begin)

    def keep(name: str, functions: Sequence[str], itself: bool) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise Unsupported(f"layer {name!r} returns a {type(output).__name__}, not a tensor")
            if begin and not output.requires_grad and not output.is_quantized:
                output = output.detach().requires_grad_()
            if itself:
                outputs[name] = output.dequantize() if output.is_quantized else output
            given = output.clone() if copies or functions else output
            if functions:
                applied.watch(name, given)
            return given

        return hook

    found = [find_layer(model, name) for name in names]
    with ExitStack() as stack:
        if any(function is not None for _, _, function in found):
            stack.enter_context(applied)
        applied.averages = AVERAGED in names
        for name, module in {name: module for name, module, _ in found if name}.items():
            read_of_it = [function for other, _, function in found if other == name]
            applied.wanted[name] = functions = [function for function in read_of_it if function is not None]
            hook = keep(name, functions, None in read_of_it)
            stack.enter_context(remove_at_exit(module.register_forward_hook(hook)))
        yield


class _AppliedResults(AppliedFunctions):
    """Keep the results of functions of the outputs of layers, and the input of the last average."""

    def __init__(self, outputs: dict[str, Tensor], begin: bool) -> None:
        super().__init__()
        self.outputs, self.wanted, self.averages, self.begin = outputs, dict[str, list[str]](), False, begin

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Keep the result if it is wanted, and return a copy that later in-place operations may overwrite."""
        if function not in self.wanted[name]:
            return result
        self.outputs[f"{name}{APPLIED}{function}"] = result
        return result.clone()

    def averaged(self, x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
        """Keep the input of the last average if it is wanted, and return a copy."""
        if not self.averages:
            return x
        x = x.detach().requires_grad_() if self.begin and not x.requires_grad else x
        self.outputs[AVERAGED] = x
        return x.clone()


def activations(model: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits `[B, K]` of `x` and the outputs of the layers `names`, in the graph of one forward pass.

    Of a module that is called several times, the last output counts.

    Raises:
        ModelError: a layer does not exist, or the pass does not use it. Unsupported: a layer's output is not a tensor.
    """
    memo = _MEMOS.get(model)
    if memo is None or memo.bypassed:
        return read(model, uncached(model), x, names)
    if not (memo.holds(x) and all(name in memo.outputs for name in names)):
        read(model, memo.original, x, tuple(memo.wanted.union(names)), memo)
        memo.wanted.update(names)  # only after the pass, which fails for a layer that cannot be read
    assert memo.logits is not None
    return memo.logits, {name: memo.outputs[name] for name in names}


def forward_from_layers(model: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits `[B, K]` of `x` and the outputs of the layers `names`, in a graph that begins at those layers.

    Nothing before them is saved for a backward pass. If one of the layers follows another, the graph begins at the
    first. If gradients are disabled, there is no graph. The pass of `shared_forward` is neither used nor changed.

    Raises:
        ModelError: a layer does not exist, or the pass does not use it. Unsupported: a layer's output is not a tensor.
    """
    return read(model, uncached(model), x.detach(), names, begin=torch.is_grad_enabled())
