"""Keep the weights of a network near tight frames: matrices whose singular values are 1.

Source: Cisse et al., Parseval Networks, ICML 2017, sections 4.1 and 4.2. The paper's constants are not in the text that
we have; the defaults are those of later code.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
MANY_ROWS = 200
"""A linear layer with so many rows or more is retracted in some of them, drawn anew in each step."""


def frames(network: nn.Module) -> list[tuple[nn.Module, float]]:
    """Return the layers that are retracted, each with the scale of its weights.

    An entry of the input takes part in `k` outputs of a convolution with a kernel of `k` places. Divided by the root of
    `k`, a tight frame has a Lipschitz constant of at most 1. The weights themselves hold this factor, so that the
    architecture does not change: the matrix that is retracted is the scale times the weights.
    """
    found: list[tuple[nn.Module, float]] = []
    for layer in network.modules():
        if isinstance(layer, LAYERS) and getattr(layer, "groups", 1) == 1:
            found.append((layer, weight_of(layer)[0, 0].numel() ** 0.5))  # one place for a linear layer
    return found


def weight_of(layer: nn.Module) -> Tensor:
    """Return the weights of a layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def retracted(rows: Tensor, beta: float) -> Tensor:
    """Return `(1 + beta) W - beta W W^T W`, one step of the descent of `|W^T W - I|^2`.

    The smaller of the two products is formed, which gives the same result.
    """
    product = rows @ (rows.T @ rows) if rows.shape[0] > rows.shape[1] else (rows @ rows.T) @ rows
    return torch.add(rows * (1 + beta), product, alpha=-beta)


@torch.no_grad()
def retract(network: nn.Module, beta: float, share: float, passes: int, generator: Generator) -> None:
    """Move the weights of all linear and convolutional layers towards tight frames, in place.

    Args:
        network: the network; layers with groups stay as they are.
        beta: the length of a step.
        share: the share of the rows of large linear layers that each pass retracts.
        passes: number of steps.
        generator: source of the choice of rows.
    """
    for layer, scale in frames(network):
        weight = weight_of(layer)
        for _ in range(passes):
            matrix = scale * weight.flatten(1)
            if isinstance(layer, nn.Linear) and len(matrix) >= MANY_ROWS and share < 1:
                order = torch.randperm(len(matrix), generator=generator, device=generator.device).to(matrix.device)
                chosen = order[: max(1, round(share * len(matrix)))]
                matrix[chosen] = retracted(matrix[chosen], beta)
            else:
                matrix = retracted(matrix, beta)
            weight.copy_((matrix / scale).view_as(weight))


@torch.no_grad()
def singular_values(network: nn.Module) -> dict[str, Tensor]:
    """Return the singular values of each layer, the largest first, by the name of the layer.

    They are those of the weights `[out, in * k]` times the scale of `frames`; those of a tight frame are all 1.
    """
    names = {layer: name for name, layer in network.named_modules()}
    return {names[layer]: torch.linalg.svdvals(scale * weight_of(layer).flatten(1)) for layer, scale in frames(network)}


def orthonormality_error(network: nn.Module) -> dict[str, float]:
    """Return for each layer how far its singular values are from 1 at most, by the name of the layer."""
    return {name: float((values - 1).abs().max()) for name, values in singular_values(network).items()}
