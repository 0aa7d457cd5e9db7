"""Transfer attacks in plain loops, as their papers write them, with the random numbers of the parts."""

from __future__ import annotations

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
