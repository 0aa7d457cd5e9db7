"""Find the last linear layer of a network, and give a network another number of classes."""

from __future__ import annotations

from torch import nn

from underfire.errors import ModelError

MOST_CLASSES = 100_000


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the last layer of a network that has parameters, which is its linear head.

    Raises:
        ModelError: the last layer is not linear.
    """
    layers = [(name, module) for name, module in network.named_modules() if any(True for _ in module.parameters(False))]
    if not layers or not isinstance(layers[-1][1], nn.Linear):
        kind = type(layers[-1][1]).__name__ if layers else "missing"
        raise ModelError(f"the network must end in a linear layer, its last layer with parameters is {kind}")
    name, layer = layers[-1]
    return name, layer


def with_classes(network: nn.Module, classes: int) -> nn.Module:
    """Replace the head of a network by one for another number of classes, with random weights, and return the network.

    Raises:
        ModelError: the last layer is not linear, or the number of classes is not in 2 ... `MOST_CLASSES`.
    """
    if not 2 <= classes <= MOST_CLASSES:
        raise ModelError(f"num_classes must be from 2 to {MOST_CLASSES}, got {classes}")
    name, layer = last_linear(network)
    parent, _, own = name.rpartition(".")
    head = nn.Linear(layer.in_features, classes, bias=True).to(layer.weight)
    setattr(network.get_submodule(parent), own, head)
    return network
