"""The regression behind `lime`, how well it fits, and how much of it another seed would say again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.coalitions import coalitions
from underfire.attribution.scores import default_generator
from underfire.attribution.superpixels import mean_colours, segment
from underfire.attribution.variants import answers, fill_image
from underfire.errors import InputError
from underfire.hooks import frozen

KERNEL = 0.25  # width of the kernel on cosine distances, and
ALPHA = 1.0  # the penalty of the ridge: the lime package's


@dataclass(frozen=True)
class LimeFit:
    """The weighted ridge regression of a model's answers on superpixels shown and hidden.

    Attributes:
        weights: of every superpixel, float64 `[B, S]`; 0 beyond the last of an image.
        intercept: the answer where all are hidden, float64 `[B]`.
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
    samples: int = 1000,
    fill: str | float = "mean",
    output: str = "logit",
    design: str = "orthogonal",
    chunk: int | None = None,
    memory: float = MEMORY,
    generator: torch.Generator | None = None,
) -> LimeFit:
    """The regression behind `lime`; the same arguments and errors."""
    if samples < 2:
        raise InputError(f"samples must be at least 2, of which the first shows everything, got {samples}")
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        pieces = segment(x, superpixels, segments)
        shown = draw_plan(pieces, samples, design, default_generator(generator, x.device))
        said = ask_samples(model, x, y, pieces, shown, fill=fill, output=output, chunk=chunk, memory=memory)
        weights, intercept = _ridge(shown, said, pieces)
        return LimeFit(weights, intercept, r_squared(weights, intercept, pieces, shown, said), pieces)


def draw_plan(pieces: Tensor, samples: int, design: str, source: torch.Generator) -> Tensor:
    """Which superpixels every sample shows, bool `[B, samples, S]`; a plan depends only on how many there are."""
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    counts = [int(one.max()) + 1 for one in pieces]
    plans = {n: coalitions(samples, n, design, torch.Generator().manual_seed(seed)) for n in set(counts)}
    shown = torch.zeros(len(pieces), samples, max(counts, default=0), dtype=torch.bool)
    for plan, n in zip(shown, counts, strict=True):
        plan[:, :n] = plans[n]
    return shown.to(pieces.device)


def ask_samples(
    model: nn.Module, x: Tensor, y: Tensor, pieces: Tensor, shown: Tensor, *, fill: str | float = "mean", **options: Any
) -> Tensor:
    """What the model says of every sample, float64 `[B, samples]`; the options are those of `asking.answers`."""
    with frozen(model):
        hidden = mean_colours(x, pieces) if fill == "mean" else fill_image(x, fill)
        # In the layout that `answers` asks the model in, so that no sample is copied into it.
        x, hidden = (image.contiguous(memory_format=torch.channels_last) for image in (x, hidden))

        def show(image: Tensor, sample: Tensor) -> Tensor:
            whole = shown[image, sample].gather(1, pieces.flatten(1)[image]).view(-1, 1, *x.shape[2:])
            return torch.where(whole, x, hidden) if len(x) == 1 else torch.where(whole, x[image], hidden[image])

        return answers(model, x, y, shown.shape[1], show, **options).double()


def _shares(shown: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """How much every sample counts, float64 `[B, samples]`, and the same as shares of all."""
    counts = pieces.flatten(1).amax(1, keepdim=True) + 1
    distance = 1 - (shown.double().sum(2) / counts).sqrt()  # cosine distance to the whole image
    kernel = torch.exp(-0.5 * (distance / KERNEL) ** 2)
    return kernel, kernel / kernel.sum(1, keepdim=True)


def _ridge(shown: Tensor, said: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and intercept of all images at once; a superpixel that is not there gets 0."""
    kernel, share = _shares(shown, pieces)
    z = shown.double()
    middle, level = torch.einsum("bn,bns->bs", share, z), (share * said).sum(1, keepdim=True)
    a, b = z - middle[:, None], said - level
    weighted = (kernel[..., None] * a).mT
    system = weighted @ a + ALPHA * torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
    w = torch.linalg.solve(system, weighted @ b[..., None]).squeeze(2)
    return w, level.squeeze(1) - (middle * w).sum(1)


def r_squared(weights: Tensor, intercept: Tensor, pieces: Tensor, shown: Tensor, said: Tensor) -> Tensor:
    """The weighted coefficient of determination on samples, which need not be those of the fit, float64 `[B]`."""
    _, share = _shares(shown, pieces)
    left = said - torch.einsum("bns,bs->bn", shown.double(), weights) - intercept[:, None]
    spread = (share * (said - (share * said).sum(1, keepdim=True)) ** 2).sum(1)
    return 1 - (share * left**2).sum(1) / torch.where(spread > 0, spread, torch.ones_like(spread))


def lime_stability(
    model: nn.Module, x: Tensor, y: Tensor, *, top: int = 5, repeats: int = 5, seed: int = 0, **options: Any
) -> Tensor:
    """The share of the top superpixels that two explanations with other seeds have in common, `[B]`.

    The mean over all pairs of `repeats` explanations; the superpixels are the same in all.

    Args:
        model: maps images to logits.
        x: images `[B, C, H, W]`.
        y: the class to explain, int64 `[B]`.
        top: how many superpixels of the largest weights count.
        repeats: how many explanations are compared.
        seed: of the first; the others follow it.
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
    chosen = []
    for number in range(seed, seed + repeats):
        chance = torch.Generator(x.device).manual_seed(number)
        weights = lime_fit(model, x.detach(), y, superpixels=pieces, generator=chance, **options).weights
        best = weights.masked_fill(absent, -torch.inf).topk(top, dim=1).indices
        chosen.append(torch.zeros_like(absent).scatter(1, best, True))
    common = [(one & other).sum(1) / top for one, other in combinations(chosen, 2)]
    return torch.stack(common).double().mean(0)
