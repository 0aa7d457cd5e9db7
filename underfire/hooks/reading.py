"""The model as it is found: frozen while it is used, its layers by name, one forward pass shared by all who look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from underfire.errors import ModelError, Unsupported, nearest


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside any number of classifiers and parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(type(model), "wrapped", None), property):  # a Classifier, which this rank cannot name
            model = model.wrapped  # type: ignore[assignment]
        else:
            return model


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Set evaluation mode and switch off weight gradients; at the end restore every mode and flag.

    A model that is no module is left alone.
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


def layer(model: nn.Module, name: str) -> nn.Module:
    """The layer called `name`.

    Raises:
        ModelError: there is none; the message suggests the nearest and lists them all.
    """
    layers = {key: module for key, module in unwrap(model).named_modules() if key}
    if name not in layers:
        raise ModelError(f"the model has no layer {name!r}; {nearest(name, layers)}")
    return layers[name]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside, attention is computed step by step: its fused kernels have a first derivative only."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class _Memo:
    """One remembered forward pass, and the layers that were ever asked for beside it."""

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
        return self.x is x and self.key == (x._version, torch.is_grad_enabled())


_MEMOS: WeakKeyDictionary[nn.Module, _Memo] = WeakKeyDictionary()


@contextmanager
def shared_forward(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Inside, calling `model` or `activations` twice on the same tensor costs one forward pass.

    A layer that `activations` asked for once is read along with every later pass, so an attack whose objective needs
    both the logits and an explanation pays for one pass a step. Yields a function that forgets the remembered pass (and
    frees it).
    """
    if model in _MEMOS:  # already shared by an outer context, which also ends it
        yield _MEMOS[model].forget
        return
    memo = _Memo(model.forward)
    own = vars(model).get("forward")  # a model whose forward was already replaced gets that one back

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
    """Inside, passes are neither taken from those of `shared_forward` nor remembered, and those stay as they are."""
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
    """The model itself, also inside `shared_forward`: what goes through it is not remembered."""
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
    """One pass, and what the layers `names` put out; with `begin` as leaves, where nothing before has a graph."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise Unsupported(f"layer {name!r} returns a {type(output).__name__}, not a tensor")
            if begin and not output.requires_grad:
                output = output.detach().requires_grad_()
            outputs[name] = output
            return output.clone()  # an in-place operation downstream must not overwrite what was read

        return hook

    with ExitStack() as stack:
        if x.requires_grad and torch.is_grad_enabled():
            stack.enter_context(twice_differentiable())
        for name in names:
            stack.enter_context(remove_at_exit(layer(model, name).register_forward_hook(keep(name))))
        logits = forward(x)
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ModelError(f"layer {missing[0]!r} took no part in the forward pass")
    if memo is not None:
        memo.x, memo.key, memo.logits, memo.outputs = x, (x._version, torch.is_grad_enabled()), logits, outputs
    return logits, outputs


@contextmanager
def remove_at_exit(handle: Any) -> Iterator[None]:
    """Remove a hook's handle at the end."""
    try:
        yield
    finally:
        handle.remove()


def activations(model: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits `[B, K]` of `x`, and the outputs of the layers `names`, in the graph of one forward pass.

    A module that is used several times gives its last output.

    Raises:
        ModelError: a layer does not exist or took no part. Unsupported: a layer's output is not a tensor.
    """
    memo = _MEMOS.get(model)
    if memo is None or memo.bypassed:
        return read(model, uncached(model), x, names)
    if not (memo.holds(x) and all(name in memo.outputs for name in names)):
        read(model, memo.original, x, tuple(memo.wanted.union(names)), memo)
        memo.wanted.update(names)  # only now: a layer that cannot be read must not spoil every later pass
    assert memo.logits is not None
    return memo.logits, {name: memo.outputs[name] for name in names}


def forward_from_layers(model: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits `[B, K]` of `x`, and the outputs of the layers `names`, in a graph that begins at those layers.

    What comes before them keeps nothing for a way back. Where one of them comes after another, the graph begins at the
    first; where gradients are off there is none. Other passes are neither used nor forgotten.

    Raises:
        ModelError: a layer does not exist or took no part. Unsupported: a layer's output is not a tensor.
    """
    return read(model, uncached(model), x.detach(), names, begin=torch.is_grad_enabled())
