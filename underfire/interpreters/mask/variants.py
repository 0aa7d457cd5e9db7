"""The constants of the published implementations of meaningful perturbations, which differ."""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 224  # side of the images that the lengths, in pixels, are for
CELLS = 28  # side of the masks


@dataclass(frozen=True)
class MaskVariant:
    """One published implementation; lengths are in pixels of an image of 224.

    Attributes:
        steps: iterations of Adam.
        area: weight of the mean of what is deleted (or kept).
        smooth: weight of the sum of the cubed differences of neighbouring cells.
        blur: sigma and radius of the Gaussian that makes the blurred image; None is a median filter of side `median`.
        start: the first value of every cell; None is the smallest circle that decides the game.
        mask_blur: sigma and radius of the Gaussian on the enlarged mask.
        jitter: by how many pixels the image is shifted under the mask.
        noise: standard deviation of the noise on the image.
        median: side of the median filter.
    """

    steps: int
    area: float
    smooth: float
    blur: tuple[float, int] | None
    start: float | None
    mask_blur: tuple[float, int] | None = None
    jitter: int = 0
    noise: float = 0.0
    median: int = 11


# OpenCV's default sigma for a kernel of k pixels is 0.3 ((k - 1) / 2 - 1) + 0.8.
VARIANTS = {
    "fong": MaskVariant(300, 1e-4 * CELLS**2, 1e-2, (10.0, 30), None, (5.0, 15), jitter=4),
    "adv2_v1": MaskVariant(400, 1e-2, 1e-4, (10.0, 5), 0.5),
    "adv2_v2": MaskVariant(300, 1e-4 * CELLS**2, 1e-2, (3.5, 10), 0.5, (2.0, 5), jitter=4),
    # Its noise of 0.2 is for normalised images, whose unit is about 0.225 of the range.
    "gildenblat": MaskVariant(500, 1e-2, 0.2 / (CELLS * (CELLS - 1)), None, 1.0, noise=0.2 * 0.225),
}
