"""Define the objective of meaningful perturbations and one step of its optimiser, for `mask` and for attacks on it.

A mask keeps a pixel where it is 1, and replaces it by the blurred image where it is 0. The deletion game deletes as
little as possible such that the class becomes improbable; the preservation game keeps as little as possible such that
the class stays probable. Sources: Fong and
Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017, equations 3 to 5; Zhang et
al., Interpretable Deep Learning under Fire, USENIX Security 2020, equations 9 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.ascent.moves import Move, adam
from underfire.attribution.fills import fill_image
from underfire.attribution.scores import class_score
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache, frozen
from underfire.interpreters.mask.variants import CELLS, SIDE, VARIANTS, MaskVariant
from underfire.transforms.blur import blur_matrix, gaussian_blur, median_blur
from underfire.validate import per_sample

GAMES = ("deletion", "preservation")
_WIDER = (20.0, 40.0, 80.0)  # sigmas of wider Gaussians, in pixels of 224, that are tried where the class stays
_RADII = 16  # circles that are tried as the first mask
ADAM = adam()


@dataclass(frozen=True)
class MaskGame:
    """The objective that the masks of a batch of images minimise; `mask_game` makes it.

    Attributes:
        model: the classifier.
        x: images `[B, C, H, W]`.
        y: classes, int64 `[B]`.
        null: the blurred images, which replace deleted pixels, `[B, C, H, W]`.
        rows: the matrix `[H, h]` that enlarges a column of a mask to the image, bilinearly, and then blurs it.
        columns: the same for a row of a mask, `[W, w]`.
        variant: the weights and constants of a published implementation.
        preserve: whether the game is preservation; otherwise it is deletion.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    null: Tensor
    rows: Tensor
    columns: Tensor
    variant: MaskVariant
    preserve: bool

    @property
    def jitter(self) -> int:
        """Return the largest shift of the image in pixels, scaled to the size of the image."""
        return round(self.variant.jitter * _scale(self.x))

    def draw(self, generator: torch.Generator) -> tuple[int, int, Tensor | None]:
        """Draw the shift of the image and the noise for one step; all images share them."""
        where = generator.device
        down, across = torch.randint(0, self.jitter + 1, (2,), generator=generator, device=where).tolist()
        if not self.variant.noise:
            return down, across, None
        noise = torch.randn(self.x.shape[1:], generator=generator, device=where, dtype=torch.float32)
        return down, across, self.variant.noise * noise.to(self.x)

    def perturbed(self, m: Tensor, drawn: tuple[int, int, Tensor | None] | None = None) -> Tensor:
        """Return the images under masks `[B, 1, h, w]`: kept where a mask is 1, blurred where it is 0.

        `drawn` is what `draw` returned; None is no jitter and no noise.
        """
        enlarged = self.rows @ m @ self.columns.T
        x, null = self.x, self.null
        down, across, noise = drawn if drawn is not None else (0, 0, None)
        if drawn is not None and self.jitter:
            x, null = (_moved(image, self.jitter, down, across) for image in (x, null))
        seen = null + enlarged * (x - null)
        return seen if noise is None else seen + noise

    def probability(self, m: Tensor, drawn: tuple[int, int, Tensor | None] | None = None) -> Tensor:
        """Return the probability of the class under the masks, `[B]`."""
        return class_score(self.model(self.perturbed(m, drawn)).softmax(1), self.y)

    def objective(self, m: Tensor, drawn: tuple[int, int, Tensor | None] | None = None) -> Tensor:
        """Return the objective of every mask, `[B]`, which is minimised; `drawn` as in `perturbed`."""
        p = self.probability(m, drawn)
        cubes = m.diff(dim=2).abs().pow(3).sum((1, 2, 3)) + m.diff(dim=3).abs().pow(3).sum((1, 2, 3))
        area, score = (m, 1 - p) if self.preserve else (1 - m, p)
        return self.variant.area * area.mean((1, 2, 3)) + self.variant.smooth * cubes + score

    @torch.no_grad()
    def start(self) -> Tensor:
        """Return the first masks, `[B, 1, h, w]`.

        A variant without a first value starts with a circle around the middle of the image: the smallest of 16 that
        takes away (or, for preservation, brings back) 99 % of the probability that the blurred image lacks.
        """
        height, width = self.rows.shape[1], self.columns.shape[1]
        keep = torch.ones(len(self.x), 1, height, width, dtype=self.x.dtype, device=self.x.device)
        if self.variant.start is not None:
            return self.variant.start * keep
        # try circles of growing radius until each image has one
        down, across = (torch.arange(n, dtype=keep.dtype, device=keep.device) - (n - 1) / 2 for n in (height, width))
        distance = (down[:, None] ** 2 + across**2).sqrt()
        whole, nothing = self.probability(keep), self.probability(0 * keep)
        first, last = (nothing, whole) if self.preserve else (whole, nothing)
        chosen, waiting = keep, torch.ones_like(self.y, dtype=torch.bool)
        for k in range(1, _RADII + 1):
            circle = (k / _RADII * (distance.max() + 1) - distance).clamp(0, 1) * keep
            m = circle if self.preserve else 1 - circle
            p = self.probability(m)
            decides = ((p - last).abs() <= 0.01 * (first - last).abs()) | (k == _RADII)
            chosen = torch.where((waiting & decides)[:, None, None, None], m, chosen)
            waiting = waiting & ~decides
        return chosen


def mask_game(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    variant: str = "fong",
    game: str = "deletion",
    fill: str | float | None = None,
    cells: int | None = None,
) -> MaskGame:
    """Return the game for these images; it carries a graph to `x` if `x` requires a gradient.

    Args:
        variant: one of `VARIANTS`.
        game: `"deletion"` or `"preservation"`.
        fill: what replaces the image (see `attribution.fills.fill_image`). `"variant"` is the variant's blurred image;
            None is the same, but a wider blur or black for an image whose class stays probable (see `_chosen_fill`).
        cells: rows of a mask. None is 28 cells on the shorter side, as in the papers, or one for each pixel of an
            image that has fewer. Columns are in proportion.

    Raises:
        Unsupported: the variant or the game is unknown. InputError: more cells than pixels.
    """
    if variant not in VARIANTS:
        raise Unsupported(f"variant {variant!r} is unknown; choices: {', '.join(VARIANTS)}")
    if game not in GAMES:
        raise Unsupported(f"game {game!r} is unknown; choices: {', '.join(GAMES)}")
    height, width = x.shape[2:]
    if cells is not None and not 1 <= cells <= height:
        raise InputError(f"cells must lie in 1 … {height}, the rows of an image, got {cells}")
    chosen, scale = VARIANTS[variant], _scale(x)
    null = _chosen_fill(model, x, y, chosen) if fill is None else _filled(x, fill, chosen)
    # the matrices that enlarge a mask
    share = cells / height if cells is not None else CELLS / min(height, width)
    lines: list[Tensor] = []
    for size in (height, width):
        line = torch.eye(max(1, min(size, round(share * size))), dtype=x.dtype, device=x.device)
        enlarge = F.interpolate(line[None], size=size, mode="linear", align_corners=False)[0].T
        if chosen.mask_blur is not None:
            sigma, radius = chosen.mask_blur
            enlarge = blur_matrix(size, sigma * scale, max(1, round(radius * scale)), like=x) @ enlarge
        lines.append(enlarge)
    return MaskGame(model, x, y, null, lines[0], lines[1], chosen, game == "preservation")


def _filled(x: Tensor, fill: str | float, variant: MaskVariant) -> Tensor:
    """Return what replaces deleted pixels, shaped like `x`: a fill, or the blurred image of the variant."""
    if fill != "variant":
        return fill_image(x, fill)
    scale = _scale(x)
    if variant.blur is None:
        return median_blur(x, 2 * max(1, round((variant.median * scale - 1) / 2)) + 1)
    return gaussian_blur(x, variant.blur[0] * scale, max(1, round(variant.blur[1] * scale)))


def _chosen_fill(model: nn.Module, x: Tensor, y: Tensor, variant: MaskVariant) -> Tensor:
    """Return what replaces deleted pixels, shaped like `x`: of every image, the first fill that loses the class.

    The fills are the variant's blurred image, wider and wider Gaussians, and black. The class is lost if at most half
    its probability remains. If no fill loses it, the one that leaves the lowest probability is taken. The strokes of
    small images are as wide as the blur of the variants, so that the class often survives it.
    """
    if not len(x):
        return x
    fills: list[Tensor] = []
    with torch.no_grad(), frozen(model), bypass_cache(model):
        whole = class_score(model(x).softmax(1), y)
    least, choice = torch.full_like(whole, float("inf")), torch.zeros_like(y)
    for number in range(2 + len(_WIDER)):
        # make the next fill
        if number == 0:
            fills.append(_filled(x, "variant", variant))
        elif number <= len(_WIDER):
            fills.append(gaussian_blur(x, _WIDER[number - 1] * _scale(x)))
        else:
            fills.append(fill_image(x, "black"))
        # take it for images that still have the class
        with torch.no_grad(), frozen(model), bypass_cache(model):
            p = class_score(model(fills[-1]).softmax(1), y)
        better = (least > whole / 2) & (p < least)
        least, choice = torch.where(better, p, least), torch.where(better, number, choice)
        if bool((least <= whole / 2).all()):
            break
    null = fills[0]
    for number, fill in enumerate(fills[1:], 1):
        null = torch.where(per_sample(choice == number, x), fill, null)
    return null


def mask_step(
    game: MaskGame, m: Tensor, state: Any = None, *, drawn: Any = None, step_size: float = 0.1, move: Move = ADAM
) -> tuple[Tensor, Any]:
    """Take one step of the optimiser on the masks, each image by itself, and clip them to `[0, 1]`.

    If the images of the game, `m` or the state require a gradient, the result carries a graph to them, by which ADV²
    reaches the image. Detach the tensors that count as constant.

    Args:
        game: the objective.
        m: masks `[B, 1, h, w]`.
        state: the state of the move after the last step; None before the first.
        drawn: what `game.draw` returned; None is no jitter and no noise.
        step_size: length of the step.
        move: Adam, or `moves.plain()` for the virtual step of ADV².

    Returns:
        The new masks and the new state.
    """
    attached = torch.is_grad_enabled() and (game.x.requires_grad or m.requires_grad)
    with frozen(game.model), torch.enable_grad():
        point = m if attached and m.requires_grad else m.detach().requires_grad_(True)
        # Objectives of different images are independent, so the gradient of their sum holds that of each.
        (g,) = torch.autograd.grad(game.objective(point, drawn).sum(), point, create_graph=attached)
        direction, state = move.update(g, state if state is not None else move.init(point.detach()))
        start = point if attached and m.requires_grad else point.detach()
        return (start - step_size * direction).clamp(0, 1), state


def _scale(x: Tensor) -> float:
    """Return the factor from lengths of a variant, for images of 224 pixels, to lengths in these images."""
    return min(x.shape[2:]) / SIDE


def _moved(image: Tensor, jitter: int, down: int, across: int) -> Tensor:
    """Return the image shifted by up to half the jitter either way; its border is repeated."""
    before, after = jitter // 2, jitter - jitter // 2
    padded = F.pad(image, (before, after, before, after), mode="replicate")
    return padded[:, :, down : down + image.shape[2], across : across + image.shape[3]]
