"""Views: functions `(x', generator)` that yield versions of the images; an attack averages its loss over the versions.

A version is a batch with a transformed image for each sample of `x'`, in the same order. A view is differentiable in
`x'`, unless it is meant for estimators without a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.errors import InputError

View = Callable[[Tensor, Generator | None], Iterable[Tensor]]


def identity(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
    """Yield one version: the images themselves."""
    yield x


def averaged(
    view: View, value: Callable[[Tensor, Tensor], Tensor], x: Tensor, generator: Generator | None = None
) -> Tensor:
    """Return the mean of `value(version, x)` over the versions of `x`, `[B]`, with a graph if `x` needs a gradient.

    Every version is back-propagated as soon as its value is known, so that only one version is in memory at a time.
    """
    wanted = x.requires_grad and torch.is_grad_enabled()
    seen = x.detach().requires_grad_(wanted)
    values, gradient, count = torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x), 0
    for version in view(seen, generator):
        found = value(version, seen)
        if found.requires_grad:
            # Retain the graph, because versions may share a part of it, such as the first of two composed views.
            gradient += torch.autograd.grad(found.sum(), seen, retain_graph=True, materialize_grads=True)[0]
        values += found.detach()
        count += 1
        del version, found  # frees the memory before the next version
    if not wanted:
        return values / count
    # The second term is zero; it gives the mean its gradient.
    return values / count + ((x - x.detach()) * (gradient / count)).flatten(1).sum(1)


def compose(*views: View) -> View:
    """Apply each view to every version that the view before it yields."""

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        if not views:
            yield x
            return
        for version in views[0](x, generator):
            yield from compose(*views[1:])(version, generator)

    return view


def eot(transform: Callable[[Tensor, Generator | None], Tensor], samples: int = 10) -> View:
    """Return the view of `samples` independent draws of a random transformation `transform(x', generator)` (EOT).

    Source: Athalye et al., Synthesizing Robust Adversarial Examples, ICML 2018.
    """
    if samples < 1:
        raise InputError(f"EOT needs samples >= 1, got {samples}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        for _ in range(samples):
            yield transform(x, generator)

    return view


def scale_copies(copies: int = 5) -> View:
    """Yield the copies `x / 2^i` for `i = 0 .. copies-1`: the scale-invariant method (SI).

    Source: Lin et al., Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks, ICLR 2020.
    """
    if copies < 1:
        raise InputError(f"scale_copies needs copies >= 1, got {copies}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        for i in range(copies):
            yield x / 2**i

    return view


def input_diversity(probability: float = 0.5, rate: float = 330 / 299) -> View:
    """Resize to a random larger size and pad with zeros at a random place, with the given probability (DI).

    The paper resizes 299-pixel images to `r x r` with `r` drawn from `[299, 330)` and pads them to 330 pixels; `rate`
    is the padded side divided by the side of the image. The result keeps the padded size, as in the paper, so the model
    must take images of any size. All images of a batch share one draw.

    Source: Xie et al., Improving Transferability of Adversarial Examples with Input Diversity, CVPR 2019.
    """
    if not 0 <= probability <= 1:
        raise InputError(f"input_diversity needs a probability in [0, 1], got {probability}")
    if not 1 < rate <= 8:
        raise InputError(f"input_diversity needs a rate (the padded side over the image's) in (1, 8], got {rate}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        def draw(low: int, high: int) -> int:
            return int(torch.randint(low, max(high, low + 1), (), generator=generator, device=_device(generator)))

        keep = float(torch.rand((), generator=generator, device=_device(generator), dtype=torch.float32)) >= probability
        if keep:
            yield x
            return
        height, width = x.shape[2:]
        full_height, full_width = round(height * rate), round(width * rate)
        new_height = draw(height, full_height)
        new_width = new_height if height == width else max(width, round(new_height * width / height))
        resized = F.interpolate(x, (new_height, new_width), mode="nearest")
        top, left = draw(0, full_height - new_height + 1), draw(0, max(full_width - new_width, 0) + 1)
        bottom, right = full_height - new_height - top, max(full_width - new_width, 0) - left
        yield F.pad(resized, (left, right, top, bottom))

    return view


def _device(generator: Generator | None) -> torch.device:
    return generator.device if generator is not None else torch.device("cpu")
