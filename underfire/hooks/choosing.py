"""Choose layers to read: by exact name, by pattern, or automatically after the activation functions of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import InputError, ModelError, Unsupported, nearest, shown
from underfire.hooks.applied import APPLIED, AppliedFunctions
from underfire.hooks.finding import last_spatial_layer, traced
from underfire.hooks.networks import find_layer, frozen, readable_layers, remove_at_exit
from underfire.hooks.pyramid import feature_pyramid
from underfire.hooks.reading import uncached
from underfire.hooks.tracing import noise_image
from underfire.model import unwatched

#: The name of the choice of hidden layers that `choose_layers` makes itself.
AUTO = "auto"
#: The name of the model's output, where the model has no layer of this name.
LOGITS = "logits"
_ACTIVATIONS = tuple(
    kind
    for kind in vars(nn.modules.activation).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind not in (nn.Module, nn.MultiheadAttention)
)
MOST = 8
"""The largest number of activation functions after each of which `AUTO` reads a layer."""


def choose_layers(model: nn.Module, x: Tensor, layers: str | Sequence[str] = AUTO) -> tuple[str, ...]:
    """Return the names of the layers that names and patterns stand for, each name once.

    `"auto"` is the hidden layers after the activation functions, in order of execution, and the last spatial layer if
    no activation function follows it. In a network with more than eight of them, it is the last layer of each spatial
    size, as in `feature_pyramid`.

    Args:
        model: the network; one noise image passes through it.
        x: images; only their size, type and device matter.
        layers: one or several of: the exact name of a layer, also of a function of its output such as `bn1+relu`;
            `"logits"`, the output of the model; `"auto"`; or a pattern such as `layer*` or `layer?.0`, in which `*`,
            `?` and `[...]` do not match a dot.

    Raises:
        InputError: no layer is named. ModelError: there is no layer of a name, or no layer matches a pattern; the
            message lists the nearest names. Unsupported: the layers of the model cannot be read.
    """
    names = (layers,) if isinstance(layers, str) else layers
    if not isinstance(names, (tuple, list)) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"layers must be 'auto', names or patterns such as ('layer*', 'logits'), got {shown(layers)}")
    return tuple(dict.fromkeys(found for name in names for found in _stands_for(model, x, name)))


def _stands_for(model: nn.Module, x: Tensor, name: str) -> Sequence[str]:
    """Return the layers that one name or pattern stands for."""
    known = dict(readable_layers(model))
    if name in known:
        return [name]
    if name == LOGITS:
        return [name]
    if name == AUTO:
        return _automatic(model, x)
    if not set(name) & set("*?["):
        find_layer(model, name)  # raises if there is none
        return [name]
    outputs = traced(model, x).outputs
    read = sorted((at, other) for other, (at, shape) in outputs.items() if not isinstance(shape, str) and shape)
    found = [other for _, other in read if _matches(other, name)]
    if not found:
        raise ModelError(f"no layer of the model matches {name!r}; {nearest(name, known)}")
    return found


def _matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern part by part; a pattern without `+` matches no function of an output."""
    parts, wanted = name.split("."), pattern.split(".")
    return (
        (APPLIED in pattern or APPLIED not in name)
        and len(parts) == len(wanted)
        and all(map(fnmatchcase, parts, wanted))
    )


def _automatic(model: nn.Module, x: Tensor) -> list[str]:
    """Return the layers of `"auto"`, see `choose_layers`.

    Raises:
        Unsupported: the network has no activation function and no spatial layer that can be read.
    """
    found = _activated(model, x)
    if len(found) > MOST:
        return [level.layer for level in feature_pyramid(model, x)]
    names = list(found)
    try:
        last = last_spatial_layer(model, x)
    except Unsupported:
        last = ""
    if last and last not in names and not any(_follows(model, x, name, last) for name in names):
        names.append(last)
    if not names:
        raise Unsupported("the model has no activation function or spatial layer that can be read; name the layers")
    return names


def _follows(model: nn.Module, x: Tensor, name: str, other: str) -> bool:
    """Return whether the layer `name` is executed after the layer `other`, or is a function of its output."""
    outputs, (before, _, function) = traced(model, x).outputs, find_layer(model, name)
    if function is not None and before == other:
        return True
    return outputs[before if function is not None else name][0] > outputs[other][0]


def _activated(model: nn.Module, x: Tensor) -> list[str]:
    """Return the names of the results of activation functions, in order of execution."""
    recorder = _Recorder()
    with ExitStack() as stack, torch.no_grad(), frozen(model), unwatched():
        stack.enter_context(recorder)
        for name, module in readable_layers(model):
            hook = module.register_forward_hook(lambda *seen, name=name: recorder.note(name, seen[0], seen[-1]))
            stack.enter_context(remove_at_exit(hook))
        uncached(model)(noise_image(x))
    # a module that is called several times has one output only; the functions of its inputs have a name each
    return list(dict.fromkeys(m if m and (recorder.calls[m] == 1 or not f) else f for f, m in recorder.found))


class _Recorder(AppliedFunctions):
    """Record the activation functions that the network applies to the outputs of layers.

    Attributes:
        found: for each, its name as a function of a layer's output, "" if its input is none, such as a sum of two; and
            the name of the module that returns its result, "" if there is none.
        calls: the number of calls of each module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.calls = Counter[str]()
        self._result: Tensor | None = None

    def note(self, name: str, module: nn.Module, output: Any) -> None:
        """Watch the output of a module, and give the result of a function the name of the module that returns it."""
        self.calls[name] += 1
        if not isinstance(output, Tensor):
            return
        if output is self._result:
            if not self.found[-1][1]:
                self.found[-1] = self.found[-1][0], name
        elif isinstance(module, _ACTIVATIONS):
            self.found.append(("", name))
            self._result = output
        self.watch(name, output)

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Record the result of a function."""
        self.found.append((f"{name}{APPLIED}{function}", ""))
        self._result = result
        return result
