"""Fit the regression of LIME, and measure how well it fits and how stable it is under other seeds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.coalitions import coalitions
from underfire.attribution.fills import fill_image
from underfire.attribution.superpixels import mean_colours, segment
from underfire.attribution.variants import class_output, evaluate_variants
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import default_generator

KERNEL = 0.25  # width of the kernel on cosine distances, as in the lime package
ALPHA = 1.0  # penalty of the ridge regression, as in the lime package


@dataclass(frozen=True)
class LimeFit:
    """The weighted ridge regression of a model's outputs on superpixels that are shown or hidden.

    Attributes:
        weights: of every superpixel, float64 `[B, S]`; 0 beyond the last superpixel of an image.
        intercept: the output if all superpixels are hidden, float64 `[B]`.
        r2: the weighted coefficient of determination on the samples, float64 `[B]`.
        segments: the superpixel of every pixel, int64 `[B, H, W]`.
    """

    weights: Tensor
    intercept: Tensor
    r2: Tensor
    segments: Tensor


def lime_fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    superpixels: str | Tensor = "quickshift",
    segments: int = 50,
    samples: int = 500,
    fill: str | float = "mean",
    output: str = "logit",
    design: str = "orthogonal",
    chunk: int | None = None,
    memory: float = MEMORY,
    generator: torch.Generator | None = None,
) -> LimeFit:
    """Fit the regression of `lime`; arguments and errors are the same."""
    if samples < 2:
        raise InputError(f"samples must be at least 2, of which the first shows everything, got {samples}")
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        pieces = segment(x, superpixels, segments)
        shown = draw_plan(pieces, samples, design, default_generator(generator, x.device))
        outputs = evaluate_samples(model, x, y, pieces, shown, fill=fill, output=output, chunk=chunk, memory=memory)
        weights, intercept = _ridge(shown, outputs, pieces)
        return LimeFit(weights, intercept, r_squared(weights, intercept, pieces, shown, outputs), pieces)


def draw_plan(pieces: Tensor, samples: int, design: str, source: torch.Generator) -> Tensor:
    """Return which superpixels each sample shows, bool `[B, samples, S]`; equal for images with the same number."""
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    counts = [int(one.max()) + 1 for one in pieces]
    plans = {n: coalitions(samples, n, design, torch.Generator().manual_seed(seed)) for n in set(counts)}
    shown = torch.zeros(len(pieces), samples, max(counts, default=0), dtype=torch.bool)
    for plan, n in zip(shown, counts, strict=True):
        plan[:, :n] = plans[n]
    return shown.to(pieces.device)


def evaluate_samples(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    pieces: Tensor,
    shown: Tensor,
    *,
    fill: str | float = "mean",
    output: str = "logit",
    **options: Any,
) -> Tensor:
    """Return the output of the model for every sample, float64 `[B, samples]`."""
    with frozen(model):
        hidden = mean_colours(x, pieces) if fill == "mean" else fill_image(x, fill)
        # the layout in which `evaluate_variants` passes images, so that no sample is copied
        x, hidden = (image.contiguous(memory_format=torch.channels_last) for image in (x, hidden))

        def make(image: Tensor, sample: Tensor) -> Tensor:
            visible = shown[image, sample].gather(1, pieces.flatten(1)[image]).view(-1, 1, *x.shape[2:])
            return torch.where(visible, x, hidden) if len(x) == 1 else torch.where(visible, x[image], hidden[image])

        return evaluate_variants(model, x, y, shown.shape[1], make, class_output(output), **options).double()


def _shares(shown: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the kernel weight of every sample, float64 `[B, samples]`, and the same divided by their sum."""
    counts = pieces.flatten(1).amax(1, keepdim=True) + 1
    distance = 1 - (shown.double().sum(2) / counts).sqrt()  # cosine distance to the whole image
    kernel = torch.exp(-0.5 * (distance / KERNEL) ** 2)
    return kernel, kernel / kernel.sum(1, keepdim=True)


def _ridge(shown: Tensor, outputs: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and intercept of the weighted ridge regression of each image; missing superpixels get 0."""
    kernel, share = _shares(shown, pieces)
    z = shown.double()
    # centre both sides, so that the intercept is not penalised
    middle, level = torch.einsum("bn,bns->bs", share, z), (share * outputs).sum(1, keepdim=True)
    a, b = z - middle[:, None], outputs - level
    weighted = (kernel[..., None] * a).mT
    system = weighted @ a + ALPHA * torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
    w = torch.linalg.solve(system, weighted @ b[..., None]).squeeze(2)
    return w, level.squeeze(1) - (middle * w).sum(1)


def r_squared(weights: Tensor, intercept: Tensor, pieces: Tensor, shown: Tensor, outputs: Tensor) -> Tensor:
    """Return the weighted coefficient of determination on any samples, those of the fit or others, `[B]`."""
    _, share = _shares(shown, pieces)
    residual = outputs - torch.einsum("bns,bs->bn", shown.double(), weights) - intercept[:, None]
    spread = (share * (outputs - (share * outputs).sum(1, keepdim=True)) ** 2).sum(1)
    return 1 - (share * residual**2).sum(1) / torch.where(spread > 0, spread, torch.ones_like(spread))


def lime_stability(
    model: nn.Module, x: Tensor, y: Tensor, *, top: int = 5, repeats: int = 5, seed: int = 0, **options: Any
) -> Tensor:
    """Return the share of the top superpixels that two explanations with different seeds have in common, `[B]`.

    The share is the mean over all pairs of `repeats` explanations with the same superpixels.

    Args:
        top: how many superpixels count, those with the largest weights.
        repeats: how many explanations are compared.
        seed: the seed of the first explanation; the others have the following seeds.
        options: those of `lime`.

    Raises:
        InputError: fewer than two repeats, or an image has no more superpixels than `top`.
    """
    if repeats < 2:
        raise InputError(f"repeats must be at least 2, got {repeats}")
    pieces = segment(x, options.pop("superpixels", "quickshift"), options.pop("segments", 50))
    fewest = min((int(one.max()) + 1 for one in pieces), default=top + 1)
    if not 1 <= top < fewest:
        raise InputError(f"top must be at least 1 and below the {fewest} superpixels of an image, got {top}")
    absent = torch.arange(int(pieces.max()) + 1, device=x.device) > pieces.flatten(1).amax(1)[:, None]
    # explain with each seed and mark the top superpixels
    chosen = []
    for number in range(seed, seed + repeats):
        source = torch.Generator(x.device).manual_seed(number)
        weights = lime_fit(model, x.detach(), y, superpixels=pieces, generator=source, **options).weights
        best = weights.masked_fill(absent, -torch.inf).topk(top, dim=1).indices
        chosen.append(torch.zeros_like(absent).scatter(1, best, True))
    # compare all pairs
    common = [(one & other).sum(1) / top for one, other in combinations(chosen, 2)]
    return torch.stack(common).double().mean(0)
