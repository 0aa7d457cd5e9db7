"""The published implementations of meaningful perturbations, which disagree, by their numbers."""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 224  # of the images that the lengths, in pixels, are for; they follow the shorter side
CELLS = 28  # of a side of the masks


@dataclass(frozen=True)
class Variant:
    """One published implementation, by its numbers; lengths in pixels of an image of 224.

    Attributes:
        steps: iterations of Adam.
        area: weight of the mean of what is deleted (or kept).
        smooth: weight of the sum of the cubed differences of neighbouring cells.
        blur: sigma and radius of the Gaussian that makes the blurred image; None is a median of `median`.
        start: what every cell starts at; None is the smallest circle that decides the game.
        mask_blur: sigma and radius of the Gaussian on the enlarged mask.
        jitter: by how many pixels the image moves under the mask.
        noise: standard deviation of what is added to the image.
        median: side of the median's square.
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


# OpenCV's sigma for a kernel of k pixels, where none is given, is 0.3 ((k - 1) / 2 - 1) + 0.8.
VARIANTS = {
    "fong": Variant(300, 1e-4 * CELLS**2, 1e-2, (10.0, 30), None, (5.0, 15), jitter=4),
    "adv2_v1": Variant(400, 1e-2, 1e-4, (10.0, 5), 0.5),
    "adv2_v2": Variant(300, 1e-4 * CELLS**2, 1e-2, (3.5, 10), 0.5, (2.0, 5), jitter=4),
    # Its noise of 0.2 is on normalised images, whose unit is about 0.225 of the range.
    "gildenblat": Variant(500, 1e-2, 0.2 / (CELLS * (CELLS - 1)), None, 1.0, noise=0.2 * 0.225),
}
