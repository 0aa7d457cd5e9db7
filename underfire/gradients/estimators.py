"""Estimators of the gradient of a loss that is given as a function: with a backward pass, or from its values alone.

An estimator has a memory, as moves and step rules have: `init(z, index) -> state` and
`update(loss, z, generator, state) -> (value [B], gradient like z, state)`. A call `estimator(loss, z, generator)`
starts with a new memory, and returns value and gradient. The function `loss(z)` returns one value per row, `[B]`, which
depends on that row of `z` alone; it also takes `k` copies of the batch, stacked to `[k * B, ...]`. The value that an
estimator returns is the loss at `z` itself, which it evaluates last.

Estimators without a backward pass differ only in the points at which they evaluate the loss: `Probes` yield symmetric
pairs of points, and `slopes` turns the differences of their losses into a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.gradients.attack_loss import Loss as Loss
from underfire.validate import per_sample

State = Any
#: A function `(z, pairs, block, generator)` that yields `pairs` offsets from `z` in blocks `[k, *z.shape]` with
#: `k <= block`, each block with its weights: `[k, B]`, or one number.
Probes = Callable[[Tensor, int, int, Generator | None], Iterator[tuple[Tensor, Tensor | float]]]


@dataclass(frozen=True)
class Estimator:
    """A rule that obtains a gradient.

    Attributes:
        init: returns the memory for the variable `z` of the samples at `index` of the attack's batch.
        update: maps the loss, `z`, a generator and the memory to value, gradient and the new memory.
    """

    init: Callable[[Tensor, Tensor], State]
    update: Callable[[Loss, Tensor, Generator | None, State], tuple[Tensor, Tensor, State]]

    def __call__(self, loss: Loss, z: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return value `[B]` and gradient of the loss at `z`, with a new memory."""
        state = self.init(z, torch.arange(len(z), device=z.device))
        value, gradient, _ = self.update(loss, z, generator, state)
        return value, gradient


def without_memory(estimate: Callable[[Loss, Tensor, Generator | None], tuple[Tensor, Tensor]]) -> Estimator:
    """Return an estimator without a memory, made from a function `(loss, z, generator) -> (value, gradient)`."""
    return Estimator(lambda z, index: None, lambda loss, z, generator, state: (*estimate(loss, z, generator), state))


def _back_propagated(loss: Loss, z: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        value = loss(z)
        if not value.requires_grad:  # the loss is not differentiable with respect to z
            return value, torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


#: The exact gradient by back-propagation: one forward and one backward pass.
autograd = without_memory(_back_propagated)


def exact() -> Estimator:
    """Compute the exact gradient by back-propagation: one forward and one backward pass."""
    return autograd


def variance_tuned(samples: int = 20, radius: float | Tensor = 1.5 * 16 / 255) -> Estimator:
    """Add to the exact gradient the gradient variance of the previous iterate (VMI).

    The variance of an iterate `z` is the mean gradient around it minus its own gradient,
    `mean_i grad(z + r_i) - grad(z)` with `r_i` uniform in `[-radius, radius]`. At the first step, 0 is added. Costs
    `samples + 1` forward and backward passes.

    Args:
        samples: number of points around the iterate, the paper's N.
        radius: half the side of the cube that the points are drawn from, the paper's `beta * eps`; one number or one
            per sample `[B]`.

    Raises:
        InputError: an argument is out of its range.

    Source: Wang and He, Enhancing the Transferability of Adversarial Attacks through Variance Tuning, CVPR 2021.
    """
    if samples < 1:
        raise InputError(f"variance_tuned needs samples >= 1, got {samples}")

    def init(z: Tensor, index: Tensor) -> State:
        own_radius = radius.to(z)[index] if isinstance(radius, Tensor) and radius.dim() else radius
        return torch.zeros_like(z), own_radius

    def update(loss: Loss, z: Tensor, generator: Generator | None, state: State) -> tuple[Tensor, Tensor, State]:
        variance, own_radius = state
        around = torch.zeros_like(z)
        for _ in range(samples):
            r = torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            around += autograd(loss, z + per_sample(own_radius, z) * (2 * r - 1))[1]
        value, g = autograd(loss, z)
        return value, g + variance, (around / samples - g, own_radius)

    return Estimator(init, update)


@torch.no_grad()
def slopes(
    loss: Loss, z: Tensor, probes: Probes, pairs: int, generator: Generator | None = None, *, chunk: int = 128
) -> Tensor:
    """Return the sum over pairs of `weight * (loss(z + offset) - loss(z - offset)) / 2 * offset`, shaped like `z`.

    Costs `2 * pairs` evaluations of the loss; up to `chunk` images are evaluated at once. A pair with a
    difference that is not finite is left out.
    """
    gradient = torch.zeros_like(z)
    for offset, weight in probes(z, pairs, max(1, chunk // (2 * max(len(z), 1))), generator):
        ahead, behind = loss(torch.cat([z + offset, z - offset]).flatten(0, 1)).view(2, len(offset), len(z))
        rise = ((ahead - behind) / 2 * weight).nan_to_num(0.0, 0.0, 0.0)
        gradient += (rise.reshape(*rise.shape, *[1] * (z.dim() - 1)) * offset).sum(0)
    return gradient


def _blocks(pairs: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield the first pair and the number of pairs of every block."""
    return ((start, min(block, pairs - start)) for start in range(0, pairs, block))


def gaussian(sigma: float) -> Probes:
    """Return probes with Gaussian offsets of standard deviation `sigma`: the gradient of the Gaussian-smoothed loss."""

    def probes(z: Tensor, pairs: int, block: int, generator: Generator | None) -> Iterator[tuple[Tensor, float]]:
        for _, count in _blocks(pairs, block):
            draw = torch.randn((count, *z.shape), generator=generator, device=z.device, dtype=z.dtype)
            yield draw.mul_(sigma), 1 / (sigma**2 * pairs)

    return probes


def latin_hypercube(sigma: float) -> Probes:
    """Return probes with Gaussian offsets that are spread evenly: a Latin hypercube of as many strata as pairs.

    In every coordinate, each of the strata of equal probability has one offset, so that the mean over the pairs of a
    function of one coordinate varies less than with independent offsets. All offsets are drawn at once; they take the
    memory of `pairs` copies of the batch.

    Source: McKay, Beckman and Conover, A Comparison of Three Methods for Selecting Values of Input Variables,
        Technometrics 1979.
    """

    def probes(z: Tensor, pairs: int, block: int, generator: Generator | None) -> Iterator[tuple[Tensor, float]]:
        def draw() -> Tensor:
            return torch.rand((pairs, *z.shape), generator=generator, device=z.device, dtype=z.dtype)

        smallest = torch.finfo(z.dtype).eps
        share = ((draw().argsort(0) + draw()) / pairs).clamp_(smallest, 1 - smallest)
        offsets = torch.special.ndtri(share).mul_(sigma)
        for first, count in _blocks(pairs, block):
            yield offsets[first : first + count], 1 / (sigma**2 * pairs)

    return probes


def rademacher(step: float) -> Probes:
    """Return probes that shift all coordinates at once, each by `step` or `-step` at random."""

    def probes(z: Tensor, pairs: int, block: int, generator: Generator | None) -> Iterator[tuple[Tensor, float]]:
        for _, count in _blocks(pairs, block):
            draw = torch.randint(0, 2, (count, *z.shape), generator=generator, device=z.device, dtype=z.dtype)
            yield draw.mul_(2 * step).sub_(step), 1 / (step**2 * pairs)

    return probes


def grouped(step: float) -> Probes:
    """Return probes that shift one group of coordinates at a time by `step`.

    Every coordinate gets the mean slope of its group. The groups are drawn at random for every sample; with as many
    pairs as coordinates, or more, every coordinate is a group of its own.
    """

    def probes(z: Tensor, pairs: int, block: int, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        flat = z.flatten(1)
        count = flat.shape[1]
        place = torch.arange(count, device=z.device).expand_as(flat)
        if pairs < count:
            draw = torch.rand(flat.shape, generator=generator, device=z.device, dtype=z.dtype)
            place = draw.argsort(1).argsort(1) * pairs // count
        for first, some in _blocks(min(pairs, count), block):
            group = torch.arange(first, first + some, device=z.device)
            inside = (place == group[:, None, None]).to(z.dtype)
            yield (step * inside).view(some, *z.shape), 1 / (step**2 * inside.sum(2))

    return probes


def _estimator(probes: Probes, samples: int | None, chunk: int) -> Estimator:
    @without_memory
    @torch.no_grad()
    def estimate(loss: Loss, z: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        pairs = z.flatten(1).shape[1] if samples is None else samples
        gradient = slopes(loss, z, probes, pairs, generator, chunk=chunk)
        return loss(z), gradient

    return estimate


def nes(samples: int = 50, sigma: float = 1e-3, chunk: int = 128) -> Estimator:
    """Estimate the gradient by natural evolution strategies (NES): loss differences along Gaussian directions.

    Costs `2 * samples + 1` forward passes and no backward pass.

    Source: Ilyas et al., Black-box Adversarial Attacks with Limited Queries and Information, ICML 2018.
    """
    if samples < 1 or sigma <= 0:
        raise InputError(f"nes needs samples >= 1 and sigma > 0, got {samples} and {sigma}")
    return _estimator(gaussian(sigma), samples, chunk)


def spsa(samples: int = 50, step: float = 0.01, chunk: int = 128) -> Estimator:
    """Estimate the gradient by simultaneous perturbation (SPSA): all coordinates are shifted at once by `step`.

    Each coordinate is shifted up or down at random. Costs `2 * samples + 1` forward passes and no backward pass.

    Source: Uesato et al., Adversarial Risk and the Dangers of Evaluating Against Weak Attacks, ICML 2018.
    """
    if samples < 1 or step <= 0:
        raise InputError(f"spsa needs samples >= 1 and step > 0, got {samples} and {step}")
    return _estimator(rademacher(step), samples, chunk)


def finite_differences(step: float = 1e-3, groups: int | None = None, chunk: int = 128) -> Estimator:
    """Estimate the gradient by central differences along every coordinate, or along random groups of coordinates.

    Costs `2 d + 1` forward passes for `d` coordinates (or groups) and no backward pass. Without groups, the gradient of
    a quadratic loss is exact.

    Args:
        step: half the distance between the two points, in units of `z`.
        groups: number of random groups; None makes every coordinate a group of its own.
        chunk: how many images go through the loss at once.

    Source: Bhagoji et al., Practical Black-Box Attacks on Deep Neural Networks Using Efficient Query Mechanisms, ECCV
        2018.
    """
    if step <= 0:
        raise InputError(f"finite_differences needs step > 0, got {step}")
    if groups is not None and groups < 1:
        raise InputError(f"finite_differences needs groups >= 1, got {groups}")
    return _estimator(grouped(step), groups, chunk)


def bpda(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function with the values of `forward` and the gradient of `backward` (None is the identity): BPDA.

    Backward-pass differentiable approximation replaces a step of a defence that has no useful gradient.

    Source: Athalye et al., Obfuscated Gradients Give a False Sense of Security, ICML 2018.
    """

    def through(x: Tensor) -> Tensor:
        with torch.no_grad():
            value = forward(x)
        smooth = x if backward is None else backward(x)
        if smooth.shape != value.shape:
            shapes = f"{tuple(value.shape)} and {tuple(smooth.shape)}"
            raise InputError(f"bpda needs a forward and a backward function of one output shape, got {shapes}")
        return value + (smooth - smooth.detach())

    return through
