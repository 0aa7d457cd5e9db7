"""Constants of the published implementations of meaningful perturbations."""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 224  # side, in pixels, of the images for which lengths are given
CELLS = 28  # side, in cells, of the masks for these images


@dataclass(frozen=True)
class MaskVariant:
    """The constants of one published implementation; lengths are in pixels, for images of 224 pixels.

    Attributes:
        steps: iterations of Adam.
        area: weight of the share of the mask that is deleted (or kept, in preservation).
        smooth: weight of the sum of the cubed differences of neighbouring cells.
        blur: sigma and radius of the Gaussian that makes the blurred image; None is a median filter of side `median`.
        start: the first value of every cell; None starts from the smallest circle that decides the game.
        mask_blur: sigma and radius of the Gaussian on the enlarged mask.
        jitter: largest shift of the image under the mask.
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
    # This implementation adds noise of 0.2 to normalised images, whose unit is about 0.225 of the range of pixels.
    "gildenblat": MaskVariant(500, 1e-2, 0.2 / (CELLS * (CELLS - 1)), None, 1.0, noise=0.2 * 0.225),
}
