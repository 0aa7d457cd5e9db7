"""Compose images of one handwritten digit among pieces of other digits: the place of the evidence is known.

Each image has 64 x 64 pixels. It shows one digit of `digits:`, slightly scaled and rotated, at a random place, and
twelve pieces of other digits at least two pixels away from it. The two splits share no scan, neither whole nor as a
piece.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.data.digits import LABELS, scans, split_indices
from underfire.records import Batch

SIDE = 64
PIECES = 12
PLACEMENTS = 20  # how often each training digit appears, each time at another place and among other pieces
TEST_IMAGES = 2000
_INK = 0.3  # the fraction of full ink from which a pixel belongs to the mask
_PATCH = 20  # the side of the square in which one piece is drawn; a piece is at most 19 pixels wide
_CHUNK = 256  # how many images are composed at once, to bound the memory
_DRAWS = (6, 8)  # how many random numbers the digit and each piece need


class ClutteredDigits:
    """Compose the images of one split: every training digit at 20 places, or 2,000 images of test digits.

    The same split and seed give the same images in every run.
    """

    labels: tuple[str, ...] | None = LABELS

    def __init__(self, split: str, seed: int = 0) -> None:
        self._split, self._seed = split, seed
        self._indices = split_indices(split)

    def __len__(self) -> int:
        return PLACEMENTS * len(self._indices) if self._split == "train" else TEST_IMAGES

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, 1, 64, 64]`; the mask is true where the digit has ink."""
        which = self._indices[torch.tensor(index, dtype=torch.int64) % len(self._indices)]
        parts = [self._compose(index[i : i + _CHUNK], which[i : i + _CHUNK]) for i in range(0, len(index), _CHUNK)]
        x = torch.cat([torch.zeros(0, 1, SIDE, SIDE, dtype=torch.float32), *(image for image, _ in parts)])
        mask = torch.cat([torch.zeros(0, 1, SIDE, SIDE, dtype=torch.bool), *(ink for _, ink in parts)])
        ids = tuple(f"{self._split}-{i:05d}-digit-{scan:04d}" for i, scan in zip(index, which.tolist(), strict=True))
        return Batch(x, scans()[1][which], ids, mask)

    def _compose(self, index: list[int], which: Tensor) -> tuple[Tensor, Tensor]:
        """Return images `[B, 1, 64, 64]` of the scans `which` `[B]` among pieces of others, and masks of their ink."""
        # columns of `whole`: place x and y, size, angle, ink, paper
        draws = torch.from_numpy(np.stack([self._draw(i) for i in index]))
        whole, parts = draws[:, : _DRAWS[0]], draws[:, _DRAWS[0] :].reshape(-1, _DRAWS[1])
        # draw the digit
        size = 26 + 12 * whole[:, 2]
        centre = size[:, None] / 2 + whole[:, :2] * (SIDE - size)[:, None]
        digit = _sample(which, _to_scan(_pixels(SIDE) - centre[:, None, None], size, 0.5 * (whole[:, 3] - 0.5)))
        mask = digit > _INK
        # remove the pieces near the digit, and join both
        near = F.avg_pool2d(F.max_pool2d(mask.float(), 5, 1, 2), 3, 1, 1, count_include_pad=False)
        ink, paper = 0.65 + 0.35 * whole[:, 4], 0.15 * whole[:, 5]
        ink, paper = ink[:, None, None, None], paper[:, None, None, None]
        return paper + (1 - paper) * torch.maximum(ink * digit, (1 - near) * self._clutter(parts)), mask

    def _clutter(self, draws: Tensor) -> Tensor:
        """Return canvases `[B, 1, 64, 64]` with the pieces that the random numbers `[B * PIECES, 8]` describe."""
        # draw each piece into a square of its own: scan, place in the scan, place in the image, size, angle, ink
        scan, source, centre = draws[:, 0], draws[:, 1:3] - 0.5, SIDE * draws[:, 3:5]
        corner = centre.floor() - _PATCH // 2
        offset = _pixels(_PATCH) + (corner - centre)[:, None, None]
        place = _to_scan(offset, 26 + 12 * draws[:, 5], 2 * (draws[:, 6] - 0.5))
        edge = (8 * (0.5 - place.norm(dim=-1))).clamp(0, 1)  # a round window with a soft edge, half as wide as the scan
        pieces = _sample(self._indices[(scan.double() * len(self._indices)).long()], place + source[:, None, None])
        pieces = pieces[:, 0] * edge * (0.5 + 0.5 * draws[:, 7, None, None])

        # copy the squares into the canvases; where pieces overlap, the larger value counts
        wide = SIDE + 2 * (_PATCH // 2)  # pieces may extend beyond the image
        rows, columns = (corner.long() + _PATCH // 2).flip(1)[:, :, None].add(torch.arange(_PATCH)).unbind(1)
        image = torch.arange(len(draws)) // PIECES
        flat = (image[:, None, None] * wide + rows[:, :, None]) * wide + columns[:, None, :]
        canvas = torch.zeros(len(draws) // PIECES * wide * wide, dtype=torch.float32)
        canvas.scatter_reduce_(0, flat.flatten(), pieces.flatten(), "amax")
        cut = slice(_PATCH // 2, _PATCH // 2 + SIDE)
        return canvas.reshape(-1, 1, wide, wide)[:, :, cut, cut]

    def _draw(self, i: int) -> np.ndarray:
        """Return the random numbers of image `i`, uniform in [0, 1); they depend on the seed and `i` alone."""
        stream = np.random.Philox(key=[self._seed, i + (0 if self._split == "train" else 1 << 32)])
        return np.random.Generator(stream).random(_DRAWS[0] + PIECES * _DRAWS[1], dtype=np.float32)


@cache
def _large() -> Tensor:
    """Return every scan, enlarged to `[1797, 1, 32, 32]` and sharpened by an S-curve."""
    v = F.interpolate(scans()[0], size=(32, 32), mode="bicubic", align_corners=False)
    v = ((v - 0.3) / 0.6).clamp(0, 1)
    return v * v * (3 - 2 * v)


@cache
def _pixels(side: int) -> Tensor:
    """Return the centre of every pixel, `[side, side, 2]`, as (x, y)."""
    line = torch.arange(side, dtype=torch.float32) + 0.5
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def _to_scan(offset: Tensor, size: Tensor, angle: Tensor) -> Tensor:
    """Convert points from pixels of an image to the coordinates [-1, 1]² of a scan, `[B, h, w, 2]`.

    Args:
        offset: the points, relative to the centre of the scan, `[h, w, 2]` or `[B, h, w, 2]`.
        size: the width of each scan in pixels, `[B]`.
        angle: the rotation of each scan in radians, `[B]`.
    """
    cos, sin, (x, y) = angle.cos()[:, None, None], angle.sin()[:, None, None], offset.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1) * (2 / size)[:, None, None, None]


def _sample(which: Tensor, grid: Tensor) -> Tensor:
    """Sample the enlarged scans `which` `[B]` at `grid` `[B, h, w, 2]`: `[B, 1, h, w]`, zero outside a scan."""
    return F.grid_sample(_large()[which], grid, align_corners=False)
