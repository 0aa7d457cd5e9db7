"""Let the weights of a network take part in gradients also where a method freezes them, as interpreters do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def live_weights(network: nn.Module) -> Iterator[None]:
    """Replace every weight that requires a gradient by a view of it inside the block.

    A method that freezes a network switches off the gradients of its parameters. A view is none, so that what the
    method computes keeps a graph to the weights.
    """
    views: dict[int, Tensor] = {}  # a weight that two layers share has one view
    found: list[tuple[nn.Module, Any, list[str]]] = []
    try:
        for layer in network.modules():
            own = layer._parameters
            names = [name for name, weight in own.items() if weight is not None and weight.requires_grad]
            if not names:
                continue
            found.append((layer, own, names))
            layer.__dict__["_parameters"] = {name: None if name in names else own[name] for name in own}
            for name in names:
                weight: Any = own[name]
                layer.__dict__[name] = views.setdefault(id(weight), weight.view_as(weight))
        yield
    finally:
        for layer, own, names in found:
            for name in names:
                layer.__dict__.pop(name, None)
            layer.__dict__["_parameters"] = own
