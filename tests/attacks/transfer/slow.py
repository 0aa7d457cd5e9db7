"""Transfer attacks in plain loops, as their papers write them, with the random numbers of the parts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

EPS, STEPS = 0.06, 3
Gradient = Callable[[Tensor], Tensor]


def entropy_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy with respect to the images."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def unit(g: Tensor) -> Tensor:
    """Every gradient divided by its L1 norm."""
    return g / g.abs().sum((1, 2, 3), keepdim=True)


def uniform(x: Tensor, radius: float, generator: Generator) -> Tensor:
    """Uniform noise in [-radius, radius]."""
    return radius * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)


def climb(x: Tensor, gradient: Gradient, decay: float = 1.0, ahead: bool = False) -> Tensor:
    """Momentum steps (plain ones with `decay=0`), with Nesterov's look-ahead if asked."""
    x_t, g, alpha = x, torch.zeros_like(x), EPS / STEPS
    for _ in range(STEPS):
        at = x_t + alpha * decay * g if ahead else x_t
        g = decay * g + unit(gradient(at))
        x_t = torch.min(torch.max(x_t + alpha * g.sign(), x - EPS), x + EPS).clamp(0, 1).detach()
    return x_t


def kernel(size: int) -> Tensor:
    """The Gaussian of Dong et al. 2019, whose sides are three standard deviations from its middle."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-((offset / (size // 2) * 3) ** 2) / 2)
    square = torch.outer(line, line)
    return (square / square.sum()).expand(3, 1, size, size)


def smoothed(g: Tensor, size: int) -> Tensor:
    """The gradient convolved with the kernel of TI."""
    return F.conv2d(g, kernel(size), padding=size // 2, groups=3)


def diverse(x: Tensor, generator: Generator, rate: float = 1.25) -> Tensor:
    """D(x; p) of Xie et al. 2019 with p = 1/2."""
    if float(torch.rand((), generator=generator)) >= 0.5:
        return x
    low, high = x.shape[2], round(rate * x.shape[2])
    r = int(torch.randint(low, high, (), generator=generator))
    x = F.interpolate(x, (r, r), mode="nearest")
    top = int(torch.randint(0, high - r + 1, (), generator=generator))
    left = int(torch.randint(0, high - r + 1, (), generator=generator))
    return F.pad(x, (left, high - r - left, top, high - r - top))


def through(model: nn.Module, x: Tensor, y: Tensor, versions: Callable[[Tensor], list[Tensor]]) -> Tensor:
    """The gradient of the mean cross-entropy over versions of the images."""
    z = x.detach().requires_grad_()
    losses = [F.cross_entropy(model(version), y, reduction="sum") for version in versions(z)]
    return torch.autograd.grad(sum(losses) / len(losses), z)[0]  # type: ignore[arg-type]


def variance_tuned(gradient: Gradient, radius: float, samples: int, generator: Generator) -> Gradient:
    """Wang and He 2021: the gradient plus the variance of the iterate before."""
    variance: list[Tensor] = []

    def tuned(x: Tensor) -> Tensor:
        around = sum(gradient(x + uniform(x, radius, generator)) for _ in range(samples)) / samples
        own = gradient(x)
        result = own + (variance[-1] if variance else 0)
        variance.append(around - own)  # type: ignore[operator]
        return result

    return tuned


def admixed(x: Tensor, pool: Tensor, y: Tensor, copies: int, samples: int, generator: Generator) -> list[Tensor]:
    """Wang et al. 2021: scaled copies of mixtures with a fifth of an image of another class."""
    versions = []
    for _ in range(samples):
        lots = torch.rand(len(x), len(x), generator=generator, dtype=x.dtype)
        partners = [
            max((j for j in range(len(x)) if y[j] != y[i]), key=lambda j, i=i: float(lots[i, j])) for i in range(len(x))
        ]
        mixed = x + 0.2 * torch.stack([pool[j] for j in partners])
        versions += [mixed / 2**i for i in range(copies)]
    return versions


def simulated(x: Tensor, samples: int, rho: float, sigma: float, generator: Generator) -> list[Tensor]:
    """Long et al. 2022, with the cosine transform as a double sum over pixels."""
    height, width = x.shape[2:]

    def basis(size: int) -> Tensor:
        rows = []
        for k in range(size):
            scale = (1 / size if k == 0 else 2 / size) ** 0.5
            rows.append([scale * math.cos(math.pi * k * (2 * n + 1) / (2 * size)) for n in range(size)])
        return torch.tensor(rows, dtype=torch.float64)

    up, across = basis(height), basis(width)
    versions = []
    for _ in range(samples):
        waves = sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)  # of noise with the same law
        noisy = x + torch.einsum("kh,bckl,lw->bchw", up, waves, across)
        weights = 1 + rho * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)
        spectrum = torch.einsum("kh,bchw,lw->bckl", up, noisy, across) * weights
        versions.append(torch.einsum("kh,bckl,lw->bchw", up, spectrum, across))
    return versions


def flattened(gradient: Gradient, radius: float, samples: int, generator: Generator) -> Gradient:
    """Ge et al. 2023, with delta = 1/2 and alpha = eps / T."""

    def flat(x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for _ in range(samples):
            near = x + uniform(x, radius, generator)
            first = gradient(near)
            second = gradient(near - EPS / STEPS * first / first.abs().mean((1, 2, 3), keepdim=True))
            total += (first + second) / 2
        return total / samples

    return flat


def shuffled(x: Tensor, samples: int, generator: Generator) -> list[Tensor]:
    """Wang et al. 2024 with 2 x 2 blocks that are not rotated."""

    def halves(v: Tensor, side: int) -> list[Tensor]:
        lot = 1 + torch.rand(2, generator=generator, dtype=torch.float64)
        place = [round(float(part)) for part in lot / lot.sum() * v.shape[side]]
        place[int(lot.argmax())] += v.shape[side] - sum(place)
        parts = v.narrow(side, 0, place[0]), v.narrow(side, place[0], place[1])
        return list(parts if int(torch.randperm(2, generator=generator)[0]) == 0 else parts[::-1])

    versions = []
    for _ in range(samples):
        first = 2 + int(torch.randint(0, 2, (), generator=generator))
        strips = []
        for strip in halves(x, first):
            pair = halves(strip, 5 - first)
            torch.rand((), generator=generator), torch.rand((), generator=generator)  # the angles, of no effect
            strips.append(torch.cat(pair, 5 - first))
        versions.append(torch.cat(strips, first))
    return versions
