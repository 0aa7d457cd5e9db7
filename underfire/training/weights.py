"""Give a network new random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from underfire.errors import ModelError


def with_new_weights(network: nn.Module, seed: int) -> nn.Module:
    """Draw all weights of a network anew, as its layers draw them when they are made, and return the network.

    The global generator is left as it was found.

    Raises:
        ModelError: a layer with weights has no function `reset_parameters`.
    """
    like = next(network.parameters())
    layers = [(name, layer) for name, layer in network.named_modules() if _own(layer)]
    for name, layer in layers:
        if _reset(layer) is None:
            raise ModelError(
                f"layer {name!r}, a {type(layer).__name__}, cannot draw new weights; give a model whose weights are "
                "random already, such as timm:NAME?pretrained=false, and leave out fresh"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        network.to("cpu")  # so that a seed gives the same weights on every device
        for _, layer in layers:
            reset: Any = _reset(layer)
            reset()
    return network.to(like.device)


def _own(layer: nn.Module) -> bool:
    """Return whether a layer has weights or statistics of its own, not of a layer inside it."""
    return (
        next(layer.parameters(recurse=False), None) is not None or next(layer.buffers(recurse=False), None) is not None
    )


def _reset(layer: nn.Module) -> Callable[[], None] | None:
    """Return the function of a layer that draws its weights, or None."""
    found = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    return found if callable(found) else None
