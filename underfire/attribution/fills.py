"""Make the image that replaces removed pixels: black, the mean colour, a blur, or one grey value."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.errors import InputError, Unsupported
from underfire.transforms.blur import gaussian_blur

FILLS = ("black", "mean", "blur")


def fill_image(x: Tensor, fill: str | float) -> Tensor:
    """Return the image that replaces removed pixels, shaped like the images `x` `[B, C, H, W]`.

    The blur is the one of the insertion measure (Petsiuk, Das and Saenko, RISE, BMVC 2018): a Gaussian of 5 pixels, cut
    off after 5 pixels, at every size of image. The authors' code pads the image with black and has a flatter kernel;
    here the image is mirrored at its borders.

    Args:
        x: images.
        fill: `"black"`; `"mean"`, the mean colour of each image; `"blur"`; or a number in `[0, 1]`, one grey value.

    Raises:
        Unsupported: the fill is unknown. InputError: the number is outside `[0, 1]`.
    """
    if not isinstance(fill, str):
        if not 0 <= fill <= 1:
            raise InputError(f"fill must be {', '.join(FILLS)} or a number in [0, 1], got {fill}")
        return torch.full_like(x, fill)
    if fill not in FILLS:
        raise Unsupported(f"fill {fill!r} is unknown; choices: {', '.join(FILLS)}, or a number")
    if fill == "black":
        return torch.zeros_like(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    filled = wide.mean((2, 3), keepdim=True) if fill == "mean" else gaussian_blur(wide, sigma=5.0, radius=5)
    return filled.to(x.dtype).expand_as(x)
