"""Compute batch norms inside the convolutions before them, which makes a pass faster and changes only its rounding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from underfire.hooks.networks import frozen, hides_functions, remove_at_exit, unwrap
from underfire.hooks.reading import uncached
from underfire.hooks.rectifiers import name_of
from underfire.hooks.tracing import noise_image
from underfire.model import unwatched

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # not their subclasses, which may do more
_TOLERANCE = 1e-4  # largest difference of a folded pair, as a share of its largest output

Pair = tuple[nn.Module, nn.Module]
_PAIRS: WeakKeyDictionary[nn.Module, dict[Any, list[tuple[str, str]]]] = WeakKeyDictionary()
_OPEN: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()
_LOCK = Lock()


@dataclass
class _Folded:
    """The number of blocks that fold a model now, whether there is a pair, and the way to restore it at the end."""

    blocks: int
    pairs: bool
    restore: ExitStack


@contextmanager
def folded(model: object, x: Tensor, keep: Collection[str] = ()) -> Iterator[bool]:
    """Compute every batch norm inside the convolution before it, inside the block; yield whether there is a pair.

    A convolution and a batch norm are a pair if, in one pass of a noise image, each is called once, the norm reads what
    the convolution returns, and nothing else does. The weights are those at the beginning of the block. Pairs with
    hooks or parametrised weights stay as they are, and so do models that are compiled or no `nn.Module`. The outputs of
    the model differ by rounding alone, and it is restored at the end of the block; but the outputs of a folded
    convolution are those of its norm, so that other layers than `keep` must not be read inside.

    Args:
        model: the classifier, in evaluation mode inside the block (see `frozen`).
        x: images; only their size, dtype and device matter.
        keep: names of convolutions that stay as they are. A block inside another folds what the outer one does.
    """
    core: object = unwrap(model) if isinstance(model, nn.Module) else model
    if not isinstance(core, nn.Module) or not _can_fold(core, x):
        yield False
        return
    with _LOCK:
        if core not in _OPEN:
            pairs = _pairs(core, x, keep)
            _OPEN[core] = _Folded(0, bool(pairs), _fold(pairs))
        _OPEN[core].blocks += 1
    try:
        yield _OPEN[core].pairs
    finally:
        with _LOCK:
            _OPEN[core].blocks -= 1
            if not _OPEN[core].blocks:
                _OPEN.pop(core).restore.close()


def _can_fold(core: nn.Module, x: Tensor) -> bool:
    """Return whether the model has batch norms, and is neither compiled nor of half precision."""
    if hides_functions(core) or not len(x):
        return False
    return any(type(module) in _NORMS for module in core.modules())


def _pairs(core: nn.Module, x: Tensor, keep: Collection[str]) -> list[Pair]:
    """Return the convolutions, but for `keep`, and the norms after them; the pass that finds them is made once."""
    known = _PAIRS.setdefault(core, {})
    key = x.shape[1:], x.dtype, x.device
    if key not in known:
        known[key] = _find(core, x)
    modules = dict(core.named_modules(remove_duplicate=False))
    there = [names for names in known[key] if modules.keys() >= {*names} and names[0] not in keep]
    found = [(modules[first], modules[second]) for first, second in there]
    return [pair for pair in found if _plain(*pair)]


def _plain(convolution: nn.Module, norm: nn.Module) -> bool:
    """Return whether the weights of a pair are ordinary parameters, and no hook of another reads the pair."""
    hooks = (convolution._forward_hooks, convolution._forward_pre_hooks, norm._forward_hooks, norm._forward_pre_hooks)
    backward = (convolution._backward_hooks, norm._backward_hooks)
    weight = convolution._parameters.get("weight")
    return (
        not any(map(len, (*hooks, *backward)))
        and weight is not None
        and weight.dtype in (torch.float32, torch.float64)
        and isinstance(norm.running_mean, Tensor)
        and isinstance(norm.running_var, Tensor)
        and norm.running_mean.dtype == weight.dtype
        and not any("forward" in vars(module) for module in (convolution, norm))
    )


class _Uses(TorchFunctionMode):
    """Note which watched tensors are read by anything but a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, Tensor] = {}
        self.elsewhere: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if name_of(func) != "batch_norm" and any(isinstance(t, Tensor) for t in tree_leaves(result)):
            read = {id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            self.elsewhere |= read & self.watched.keys()
        return result


def _find(core: nn.Module, x: Tensor) -> list[tuple[str, str]]:
    """Return the names of the pairs, by a pass of one noise image; none if the module refuses it."""
    uses, calls = _Uses(), dict[str, int]()
    inputs, source, pairs = dict[str, Tensor](), dict[int, str](), list[tuple[str, str, int]]()

    def note_convolution(name: str, seen: tuple[Any, ...], output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(output, Tensor) and seen and isinstance(seen[0], Tensor):
            inputs[name], source[id(output)], uses.watched[id(output)] = seen[0].detach().clone(), name, output

    def note_norm(name: str, seen: tuple[Any, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        if seen and id(seen[0]) in source:
            pairs.append((source[id(seen[0])], name, id(seen[0])))

    like = next((p for p in core.parameters() if p.is_floating_point()), x)
    with ExitStack() as stack, torch.no_grad(), frozen(core), unwatched():
        for name, module in core.named_modules():
            if isinstance(module, _CONVOLUTIONS):
                hook = module.register_forward_hook(
                    lambda _, seen, output, name=name: note_convolution(name, seen, output)
                )
                stack.enter_context(remove_at_exit(hook))
            elif type(module) in _NORMS:
                before = module.register_forward_pre_hook(lambda _, seen, name=name: note_norm(name, seen))
                stack.enter_context(remove_at_exit(before))
        stack.enter_context(uses)
        try:
            logits = uncached(core)(noise_image(x).to(like.dtype))
        except Exception:  # noqa: BLE001 - a network may raise anything for an image that it refuses
            return []  # the caller's own pass says what is wrong
    returned = {id(t) for t in tree_leaves(logits) if isinstance(t, Tensor)}
    modules = dict(core.named_modules())
    return [
        (first, second)
        for first, second, output in pairs
        if calls[first] == calls[second] == 1
        and output not in uses.elsewhere | returned
        and _agrees(modules[first], modules[second], inputs[first])
    ]


@torch.no_grad()
def _agrees(convolution: nn.Module, norm: nn.Module, z: Tensor) -> bool:
    """Return whether a folded pair gives the output of the pair; a convolution may change its weights before use."""
    if not _plain(convolution, norm):
        return False
    with frozen(nn.ModuleList([convolution, norm])):
        wanted = norm(convolution(z))
        with _fold([(convolution, norm)]):
            found = norm(convolution(z))
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())


def _fold(pairs: list[Pair]) -> ExitStack:
    """Fold the pairs, and return what restores them when it is closed."""
    restore = ExitStack()
    with torch.no_grad():
        for convolution, norm in pairs:
            weight, bias = convolution._parameters["weight"], convolution._parameters.get("bias")
            mean, variance = norm._buffers["running_mean"], norm._buffers["running_var"]
            gain, offset = norm._parameters.get("weight"), norm._parameters.get("bias")
            assert weight is not None and mean is not None and variance is not None
            # in double precision, so that the only rounding is that of the folded weights
            scale = (variance.double() + cast(nn.BatchNorm2d, norm).eps).rsqrt()
            scale = scale if gain is None else scale * gain.double()
            shift = scale * (-mean.double() if bias is None else bias.double() - mean.double())
            shift = shift if offset is None else shift + offset.double()
            wide = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
            # keep the layout of the weight, such as channels last
            folded_weight = torch.empty_like(weight).copy_(wide)
            restore.callback(convolution._parameters.__setitem__, "weight", weight)
            restore.callback(convolution._parameters.__setitem__, "bias", bias)
            restore.callback(vars(norm).pop, "forward", None)
            convolution._parameters["weight"] = nn.Parameter(folded_weight, requires_grad=False)
            convolution._parameters["bias"] = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
            vars(norm)["forward"] = _same
    return restore


def _same(z: Tensor) -> Tensor:
    """Return the output of a convolution in which the batch norm is folded."""
    return z
