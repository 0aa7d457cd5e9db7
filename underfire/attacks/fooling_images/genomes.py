"""Encodings of images as genomes: pixel by pixel, or as a compositional pattern-producing network (CPPN).

The genomes of a population are a tuple of tensors with one row for each individual. An encoding has `random(count,
generator)`, `mutate(genomes, generation, generator)` and `render(genomes) -> images in [0, 1]`; all of them work on a
whole population at once.

Source: Nguyen, Yosinski and Clune, Deep Neural Networks Are Easily Fooled, CVPR 2015.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Generator, Tensor

Genomes = tuple[Tensor, ...]


class Encoding(Protocol):
    """Interface of an encoding: how genomes are drawn, mutated and rendered."""

    def random(self, count: int, generator: Generator | None) -> Genomes:
        """Return the genomes of `count` new individuals."""

    def mutate(self, genomes: Genomes, generation: int, generator: Generator | None) -> Genomes:
        """Return a changed copy of every genome."""

    def render(self, genomes: Genomes) -> Tensor:
        """Return the images, `[N, C, H, W]` in `[0, 1]`."""


class Direct:
    """One gene for each entry of the image, at first uniform noise (for colour, the paper has hue and saturation).

    A tenth of the genes mutate, half as many after every 1000 generations, by polynomial mutation of strength 15.

    Args:
        shape: channels, height and width.
        like: a tensor of the wanted device and dtype.
    """

    def __init__(self, shape: tuple[int, int, int], like: Tensor) -> None:
        self.shape, self.like = shape, like

    def _uniform(self, count: int, generator: Generator | None) -> Tensor:
        return torch.rand((count, *self.shape), generator=generator, device=self.like.device, dtype=self.like.dtype)

    def random(self, count: int, generator: Generator | None) -> Genomes:
        """Return uniform noise."""
        return (self._uniform(count, generator),)

    def mutate(self, genomes: Genomes, generation: int, generator: Generator | None) -> Genomes:
        """Mutate some genes by polynomial mutation."""
        (image,) = genomes
        rate, strength = 0.1 * 0.5 ** (generation // 1000), 15
        u = self._uniform(len(image), generator)
        down = (2 * u) ** (1 / (strength + 1)) - 1
        up = 1 - (2 - 2 * u).clamp_min(0) ** (1 / (strength + 1))
        changed = (image + torch.where(u < 0.5, down, up)).clamp(0, 1)
        return (torch.where(self._uniform(len(image), generator) < rate, changed, image),)

    def render(self, genomes: Genomes) -> Tensor:
        """Return the genes as images."""
        return genomes[0]


class Cppn:
    """A small feed-forward network from the position of a pixel (x, y, distance from the centre, one) to its colour.

    The functions of the nodes are sine, Gaussian, sigmoid and clipped identity, with values between -1 and 1. As in
    NEAT, evolution starts without hidden nodes and adds nodes, connections and weight changes. It is simpler than the
    paper's, so that a population is a few tensors: the slots for nodes are fixed and ordered, a new node splits only a
    connection into an output, no other connection is removed, there is no crossover, and colour is RGB.

    Args:
        shape: channels, height and width.
        like: a tensor of the wanted device and dtype.
        hidden: number of slots for hidden nodes.
    """

    INPUTS = 4
    #: Probabilities that a child gets a new node and a new connection, and that each weight and each node's function
    #: changes.
    NODE, CONNECTION, WEIGHT, FUNCTION = 0.2, 0.4, 0.3, 0.05

    def __init__(self, shape: tuple[int, int, int], like: Tensor, hidden: int = 12) -> None:
        self.shape, self.like, self.hidden = shape, like, hidden
        lines = [torch.linspace(-1, 1, side, device=like.device, dtype=like.dtype) for side in shape[1:]]
        y, x = (place.flatten() for place in torch.meshgrid(*lines, indexing="ij"))
        self.places = torch.stack([x, y, (x * x + y * y).sqrt(), torch.ones_like(x)])
        node = torch.arange(hidden + shape[0], device=like.device)[:, None]
        source = torch.arange(self.INPUTS + hidden, device=like.device)
        # which sources a node may be connected to: the inputs and the hidden nodes before it, bool [nodes, sources]
        self.order = source < self.INPUTS + node.clamp_max(hidden)

    def _rand(self, *shape: int, generator: Generator | None) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.like.device, dtype=self.like.dtype)

    def _normal(self, *shape: int, generator: Generator | None) -> Tensor:
        return torch.randn(shape, generator=generator, device=self.like.device, dtype=self.like.dtype)

    def random(self, count: int, generator: Generator | None) -> Genomes:
        """Return networks with all inputs connected to every output and random weights, functions and hidden nodes."""
        nodes, sources = self.order.shape
        weights = 2 * self._normal(count, nodes, sources, generator=generator)
        connected = torch.zeros_like(weights, dtype=torch.bool)
        connected[:, self.hidden :, : self.INPUTS] = True
        functions = (4 * self._rand(count, nodes, generator=generator)).long()
        return weights, connected, functions, torch.zeros(count, dtype=torch.int64, device=self.like.device)

    def mutate(self, genomes: Genomes, generation: int, generator: Generator | None) -> Genomes:
        """Add a node or a connection with some probability, and change some weights and functions."""
        weights, connected, functions, used = (part.clone() for part in genomes)
        count, nodes, sources = weights.shape
        # add a node
        drawn = self._rand(count, 2, generator=generator)
        self._split(weights, connected, used, drawn[:, 0] < self.NODE, generator)
        # add a connection that does not exist yet, from a source in use to a node in use after it
        slot = torch.arange(nodes, device=used.device)
        used_node = (slot < used[:, None]) | (slot >= self.hidden)
        used_source = torch.arange(sources, device=used.device) < self.INPUTS + used[:, None]
        possible = self.order & used_node[:, :, None] & used_source[:, None] & ~connected
        rows = ((drawn[:, 1] < self.CONNECTION) & possible.flatten(1).any(1)).nonzero().squeeze(1)
        place = (self._rand(count, nodes * sources, generator=generator) * possible.flatten(1))[rows].argmax(1)
        connected.flatten(1)[rows, place] = True
        # change weights and functions
        change = self._rand(count, nodes, sources, generator=generator) < self.WEIGHT
        weights = weights + change * self._normal(count, nodes, sources, generator=generator)
        other = (4 * self._rand(count, nodes, generator=generator)).long()
        functions = torch.where(self._rand(count, nodes, generator=generator) < self.FUNCTION, other, functions)
        return weights, connected, functions, used

    def _split(
        self, weights: Tensor, connected: Tensor, used: Tensor, wanted: Tensor, generator: Generator | None
    ) -> None:
        """Put a new node into a random connection of an output, in place: weight 1 before it, old weight after it."""
        sources = weights.shape[2]
        outputs = connected[:, self.hidden :].flatten(1)
        draw = self._rand(*outputs.shape, generator=generator) * outputs
        rows = (wanted & (used < self.hidden) & outputs.any(1)).nonzero().squeeze(1)
        place = draw[rows].argmax(1)
        output, source, new = self.hidden + place // sources, place % sources, used[rows]
        connected[rows, output, source] = False
        connected[rows, new, source] = True
        connected[rows, output, self.INPUTS + new] = True
        weights[rows, output, self.INPUTS + new] = weights[rows, output, source]
        weights[rows, new, source] = 1
        used[rows] += 1

    def render(self, genomes: Genomes) -> Tensor:
        """Evaluate every network at every pixel, and return the images, `[N, C, H, W]` in `[0, 1]`."""
        weights, connected, functions, used = genomes
        weights = weights * connected
        count, deepest = len(weights), int(used.max()) if len(used) else 0
        known = self.INPUTS + deepest
        values = self.places.new_zeros(count, known, self.places.shape[1])
        values[:, : self.INPUTS] = self.places
        # hidden nodes, in their order
        for node in range(deepest):
            place = self.INPUTS + node
            total = torch.bmm(weights[:, node : node + 1, :place], values[:, :place])
            values[:, place] = _activations(total, functions[:, node : node + 1])[:, 0]
        # outputs
        total = torch.bmm(weights[:, self.hidden :, :known], values)
        return ((_activations(total, functions[:, self.hidden :]) + 1) / 2).view(count, *self.shape)


def _activations(total: Tensor, functions: Tensor) -> Tensor:
    """Return each node's function of its input, `[N, nodes, pixels]`, with values between -1 and 1.

    Args:
        total: the inputs of the nodes, `[N, nodes, pixels]`.
        functions: 0 sine, 1 Gaussian, 2 sigmoid, 3 clipped identity, int64 `[N, nodes]`.
    """
    which = functions[..., None]
    sine, bell = (math.pi * total).sin(), 2 * (-total.square()).exp() - 1
    return torch.where(
        which == 0, sine, torch.where(which == 1, bell, torch.where(which == 2, total.tanh(), total.clamp(-1, 1)))
    )
