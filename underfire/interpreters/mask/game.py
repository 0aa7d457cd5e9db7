"""Define the objective of meaningful perturbations, for `mask` and for attacks on it.

A mask keeps a pixel where it is 1, and replaces it by the blurred image where it is 0. The deletion game deletes as
little as possible such that the class becomes improbable; the preservation game keeps as little as possible such that
the class stays probable. Sources: Fong and
Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017, equations 3 to 5; Zhang et
al., Interpretable Deep Learning under Fire, USENIX Security 2020, equations 9 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.scores import class_score
from underfire.errors import InputError, Unsupported
from underfire.interpreters.mask.fillings import Filling, filling_of, scale_of
from underfire.interpreters.mask.variants import CELLS, VARIANTS, MaskVariant
from underfire.transforms.blur import blur_matrix

GAMES = ("deletion", "preservation")
_RADII = 16  # circles that are tried as the first mask

Drawn = tuple[int, int, Tensor | None]
"""What `MaskGame.draw` returns: how far the image moves down and across, and its noise or None."""


@dataclass(frozen=True)
class MaskGame:
    """The objective that the masks of a batch of images minimise; `mask_game` makes it.

    Attributes:
        model: the classifier.
        x: images `[B, C, H, W]`.
        y: classes, int64 `[B]`.
        null: the blurred images, which replace deleted pixels, `[B, C, H, W]`.
        filling: the function from images to `null`.
        rows: the matrix `[H, h]` that enlarges a column of a mask to the image, bilinearly, and then blurs it.
        columns: the same for a row of a mask, `[W, w]`.
        variant: the weights and constants of a published implementation.
        preserve: whether the game is preservation; otherwise it is deletion.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    null: Tensor
    filling: Filling
    rows: Tensor
    columns: Tensor
    variant: MaskVariant
    preserve: bool

    @property
    def jitter(self) -> int:
        """Return the largest shift of the image in pixels, scaled to the size of the image."""
        return round(self.variant.jitter * scale_of(self.x))

    def at(self, x: Tensor) -> MaskGame:
        """Return the game for other images, with the same kind of filling for each; it carries a graph to `x`."""
        return replace(self, x=x, null=self.filling(x))

    def detach(self) -> MaskGame:
        """Return the game without its graph to the images."""
        return replace(self, x=self.x.detach(), null=self.null.detach())

    def take(self, rows: Tensor) -> MaskGame:
        """Return the game of the images at `rows`, int64 `[M]`."""
        parts = {name: getattr(self, name)[rows] for name in ("x", "y", "null")}
        return replace(self, **parts, filling=self.filling.take(rows))

    def draw(self, generator: torch.Generator) -> Drawn:
        """Draw the shift of the image and the noise for one step; all images share them."""
        where = generator.device
        down, across = torch.randint(0, self.jitter + 1, (2,), generator=generator, device=where).tolist()
        if not self.variant.noise:
            return down, across, None
        noise = torch.randn(self.x.shape[1:], generator=generator, device=where, dtype=torch.float32)
        return down, across, self.variant.noise * noise.to(self.x)

    def perturbed(self, m: Tensor, drawn: Drawn | None = None) -> Tensor:
        """Return the images under masks `[B, 1, h, w]`: kept where a mask is 1, blurred where it is 0.

        `drawn` is the result of `draw`; None means no jitter and no noise.
        """
        enlarged = self.rows @ m @ self.columns.T
        x, null = self.x, self.null
        down, across, noise = drawn if drawn is not None else (0, 0, None)
        if drawn is not None and self.jitter:
            x, null = (_moved(image, self.jitter, down, across) for image in (x, null))
        seen = null + enlarged * (x - null)
        return seen if noise is None else seen + noise

    def probability(self, m: Tensor, drawn: Drawn | None = None) -> Tensor:
        """Return the probability of the class under the masks, `[B]`."""
        return class_score(self.model(self.perturbed(m, drawn)).softmax(1), self.y)

    def penalty(self, m: Tensor) -> Tensor:
        """Return the part of the objective that no image changes, `[B]`: the area and the differences of cells."""
        cubes = m.diff(dim=2).abs().pow(3).sum((1, 2, 3)) + m.diff(dim=3).abs().pow(3).sum((1, 2, 3))
        area = m if self.preserve else 1 - m
        return self.variant.area * area.mean((1, 2, 3)) + self.variant.smooth * cubes

    def score(self, m: Tensor, drawn: Drawn | None = None) -> Tensor:
        """Return the part of the objective that the model decides, `[B]`; `drawn` as in `perturbed`."""
        p = self.probability(m, drawn)
        return 1 - p if self.preserve else p

    def objective(self, m: Tensor, drawn: Drawn | None = None) -> Tensor:
        """Return the objective of every mask, `[B]`, which is minimised; `drawn` as in `perturbed`."""
        return self.penalty(m) + self.score(m, drawn)

    def spread(self, v: Tensor) -> Tensor:
        """Return how the images under masks change along a direction `v` of the masks, shaped like the images."""
        return self.rows @ v @ self.columns.T * (self.x - self.null)

    def shown(self, m: Tensor) -> Tensor:
        """Return the map of a mask, or the mask of a map, shaped like it: 1 for important pixels."""
        return m if self.preserve else 1 - m

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
            None is the same, but a wider blur or black for an image whose class stays probable (see
            `fillings`).
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
    chosen, scale = VARIANTS[variant], scale_of(x)
    filling = filling_of(model, x, y, chosen, fill)
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
    return MaskGame(model, x, y, filling(x), filling, lines[0], lines[1], chosen, game == "preservation")


def _moved(image: Tensor, jitter: int, down: int, across: int) -> Tensor:
    """Return the image shifted by up to half the jitter either way; its border is repeated."""
    before, after = jitter // 2, jitter - jitter // 2
    padded = F.pad(image, (before, after, before, after), mode="replicate")
    return padded[:, :, down : down + image.shape[2], across : across + image.shape[3]]
