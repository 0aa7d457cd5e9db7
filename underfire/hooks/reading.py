"""Read a network: freeze it, find its layers by name, read their outputs, share one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isqrt
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from underfire.errors import ModelError, Unsupported, nearest
from underfire.hooks.applied import APPLIED, AppliedFunctions
from underfire.hooks.second_derivatives import twice_differentiable


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's module inside any number of classifiers and parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(type(model), "wrapped", None), property):
            # a Classifier, which this module may not import
            model = model.wrapped  # type: ignore[assignment]
        else:
            return model


def channels_of(model: nn.Module) -> int | None:
    """Return the number of channels of the images that a model takes, or None if its layers do not tell.

    The first convolution tells it; or, where a linear layer reads the pixels of square images, its number of inputs.
    """
    layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    convolution = next((module for module in layers if isinstance(module, nn.Conv2d)), None)
    if convolution is not None:
        return convolution.in_channels
    inputs = layers[0].in_features if layers and isinstance(layers[0], nn.Linear) else 0
    return next((c for c in (1, 3) if inputs and inputs == c * isqrt(inputs // c) ** 2), None)


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Set evaluation mode and switch off gradients of the weights inside the block, and restore both at its end.

    A model that is not an `nn.Module` stays as it is.
    """
    root = model if isinstance(model, nn.Module) else nn.Identity()
    modes = [(module, module.training) for module in root.modules()]
    wanted = [parameter for parameter in root.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanted:
            parameter.requires_grad_(True)


def readable_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of a model with their names; those inside a compiled part have no hooks and are left out.

    Raises:
        Unsupported: the whole model is compiled, or is a function and no `nn.Module`.
    """
    core: object = unwrap(model)
    if not isinstance(core, nn.Module):
        raise Unsupported(
            f"a model that is a {type(core).__name__} has no layers to read; give an nn.Module, or choose an "
            "interpreter that reads no layer, such as occlusion, rise or lime"
        )
    if isinstance(core, torch.jit.ScriptModule):
        raise Unsupported(
            "the layers of a model that torch.jit compiled cannot be read; give the model that it was compiled from, "
            "or choose an interpreter that reads no layer, such as gradient"
        )
    return [(key, m) for key, m in core.named_modules() if key and not isinstance(m, torch.jit.ScriptModule)]


def layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer called `name`; of `NAME+FUNCTION`, a function of a layer's output, it is the layer `NAME`.

    Raises:
        ModelError: there is none; the message suggests the nearest name and lists all. Unsupported: the model is
            compiled.
    """
    return _find(model, name)[1]


def _find(model: nn.Module, name: str) -> tuple[str, nn.Module, str | None]:
    """Return the name of a layer, the layer, and the function of its output that is read, or None."""
    layers = dict(readable_layers(model))
    before, plus, function = name.rpartition(APPLIED)
    if name not in layers and plus and before in layers:
        return before, layers[before], function
    if name not in layers:
        raise ModelError(f"the model has no layer {name!r}; {nearest(name, layers)}")
    return name, layers[name], None


def version(t: Tensor) -> int:
    """Return how often a tensor was written to; 0 for one that was made in inference mode, which is not counted."""
    return 0 if t.is_inference() else t._version


def is_compiled(model: object) -> bool:
    """Return whether `torch.jit` compiled a part of the model, whose layers take no hooks."""
    return isinstance(model, nn.Module) and any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())


class _Memo:
    """The forward pass that `shared_forward` remembers, and the names of the layers that every pass reads."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self.original = forward
        self.wanted: set[str] = set()
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
def shared_forward(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Remember the last forward pass inside the block: calls of `model` and `activations` on the same tensor share it.

    An attack whose objective needs both the logits and an explanation then needs one pass in each step. A layer that
    `activations` read once is read in every later pass too. Yields a function that forgets the remembered pass and
    frees its memory.
    """
    if model in _MEMOS:  # an outer context shares the passes already
        yield _MEMOS[model].forget
        return
    if not hasattr(model, "forward"):  # a plain function, whose passes are not shared
        yield lambda: None
        return
    memo = _Memo(model.forward)
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run one pass and return the logits and the outputs of the layers `names`.

    Args:
        forward: the function that maps `x` to logits.
        memo: where the pass is remembered; None remembers nothing.
        begin: let the graph begin at these layers, as in `forward_from_layers`.
    """
    outputs: dict[str, Tensor] = {}
    applied = _AppliedResults(outputs)

    def keep(name: str, functions: Sequence[str], itself: bool) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise Unsupported(f"layer {name!r} returns a {type(output).__name__}, not a tensor")
            if begin and not output.requires_grad and not output.is_quantized:
                output = output.detach().requires_grad_()
            if itself:
                outputs[name] = output.dequantize() if output.is_quantized else output
            given = output.clone()  # a later in-place operation must not overwrite it
            if functions:
                applied.watch(name, given)
            return given

        return hook

    found = [_find(model, name) for name in names]
    with ExitStack() as stack:
        if x.requires_grad and torch.is_grad_enabled():
            stack.enter_context(twice_differentiable())
        if any(function is not None for _, _, function in found):
            stack.enter_context(applied)
        for name, module in {name: module for name, module, _ in found}.items():
            read_of_it = [function for other, _, function in found if other == name]
            applied.wanted[name] = functions = [function for function in read_of_it if function is not None]
            hook = keep(name, functions, None in read_of_it)
            stack.enter_context(remove_at_exit(module.register_forward_hook(hook)))
        logits = forward(x)
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelError(f"layer {missing[0]!r} took no part in the forward pass")
    if memo is not None:
        memo.x, memo.key, memo.logits, memo.outputs = x, (version(x), torch.is_grad_enabled()), logits, outputs
    return logits, outputs


class _AppliedResults(AppliedFunctions):
    """Keep the results of functions that the network applies to the outputs of layers."""

    def __init__(self, outputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.outputs, self.wanted = outputs, dict[str, list[str]]()

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Keep the result if it is wanted, and return a copy that later in-place operations may overwrite."""
        if function not in self.wanted[name]:
            return result
        self.outputs[f"{name}{APPLIED}{function}"] = result
        return result.clone()


@contextmanager
def remove_at_exit(handle: Any) -> Iterator[None]:
    """Remove a hook at the end of the block."""
    try:
        yield
    finally:
        handle.remove()


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
