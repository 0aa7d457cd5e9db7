"""Views: functions `(x', generator)` that yield versions of the images; an attack averages its loss over the versions.

A version is a batch with a transformed image for each sample of `x'`, in the same order. A view is differentiable in
`x'`, unless it is meant for estimators without a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.errors import InputError, ModelError
from underfire.model import model_errors

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
        found = _shown(value, version, seen)
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


def _shown(value: Callable[[Tensor, Tensor], Tensor], version: Tensor, x: Tensor) -> Tensor:
    """Return `value(version, x)`; an error of a model that takes no images of another size names this size."""
    try:
        with model_errors(version):
            return value(version, x)
    except ModelError as error:
        if version.shape == x.shape:
            raise
        hint = "a view made this size; input_diversity (di) keeps the size of the image with keep_size=True"
        raise ModelError(f"{error}; {hint}") from error


@dataclass(frozen=True)
class Rows:
    """The samples that the rows of a batch belong to.

    Attributes:
        index: the position of each row's sample in the batch that was given to the attack, int64 `[B]`.
        y: the labels of the rows, int64 `[B]`.
        images: the clean images of the attack's whole batch, `[N, ...]`.
        labels: their labels, int64 `[N]`.
    """

    index: Tensor
    y: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class RowView:
    """A view that depends on the samples of its rows; a recipe calls `of` with them, and uses the view that it gets."""

    of: Callable[[Rows], View]

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Iterable[Tensor]:
        """Raise InputError, because the samples of the rows are not known."""
        raise InputError("this view depends on the samples of its rows: use it in a recipe, or call its `of` first")


def of_rows(view: View, rows: Rows) -> View:
    """Return the view for these rows."""
    return view.of(rows) if isinstance(view, RowView) else view


def compose(*views: View) -> View:
    """Apply each view to every version that the view before it yields."""
    if any(isinstance(view, RowView) for view in views):
        return RowView(lambda rows: compose(*(of_rows(view, rows) for view in views)))

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        if not views:
            yield x
            return
        for version in views[0](x, generator):
            yield from compose(*views[1:])(version, generator)

    return view


def together(*views: View) -> View:
    """Yield the versions of each view."""
    if any(isinstance(view, RowView) for view in views):
        return RowView(lambda rows: together(*(of_rows(view, rows) for view in views)))

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        for one in views:
            yield from one(x, generator)

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


def input_diversity(probability: float = 0.5, rate: float = 330 / 299, keep_size: bool = False) -> View:
    """Resize to a random larger size and pad with zeros at a random place, with the given probability (DI).

    The paper resizes 299-pixel images to `r x r` with `r` drawn from `[299, 330)` and pads them to 330 pixels; `rate`
    is the padded side divided by the side of the image. The result keeps the padded size, as in the paper, so the model
    must take images of any size. All images of a batch share one draw.

    Args:
        probability: how often the images are resized and padded.
        rate: the padded side divided by the side of the image.
        keep_size: scale the padded images back to the size of the image, for a model that takes only one size.

    Source: Xie et al., Improving Transferability of Adversarial Examples with Input Diversity, CVPR 2019.
    """
    if not 0 <= probability <= 1:
        raise InputError(f"input_diversity needs a probability in [0, 1], got {probability}")
    if not 1 < rate <= 8:
        raise InputError(f"input_diversity needs a rate (the padded side over the image's) in (1, 8], got {rate}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        draws = on_host(generator)
        if uniform(0, 1, draws) >= probability:
            yield x
            return
        padded = resized_and_padded(x, rate, draws)
        yield F.interpolate(padded, x.shape[2:], mode="bilinear", align_corners=False) if keep_size else padded

    return view


def resized_and_padded(x: Tensor, rate: float, generator: Generator | None) -> Tensor:
    """Resize to a random size of at most `rate` times the side of the image, and pad with zeros to this size.

    Args:
        generator: source of the random numbers, on the CPU.
    """

    def draw(low: int, high: int) -> int:
        return whole(low, max(high, low + 1), generator)

    height, width = x.shape[2:]
    full_height, full_width = round(height * rate), round(width * rate)
    new_height = draw(height, full_height)
    new_width = new_height if height == width else max(width, round(new_height * width / height))
    resized = F.interpolate(x, (new_height, new_width), mode="nearest")
    top, left = draw(0, full_height - new_height + 1), draw(0, max(full_width - new_width, 0) + 1)
    bottom, right = full_height - new_height - top, max(full_width - new_width, 0) - left
    return F.pad(resized, (left, right, top, bottom))


def on_host(generator: Generator | None) -> Generator | None:
    """Return a generator on the CPU, from which sizes and places can be drawn without waiting for a device each time.

    A generator on another device is read once, for a seed.
    """
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return Generator().manual_seed(int(seed))


def whole(low: int, high: int, generator: Generator | None) -> int:
    """Return a random whole number in `[low, high)`; the generator is on the CPU."""
    return int(torch.randint(low, high, (), generator=generator))


def uniform(low: float, high: float, generator: Generator | None) -> float:
    """Return a random number in `[low, high)`; the generator is on the CPU."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float32))
