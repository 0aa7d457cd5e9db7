"""Read image files of any size and colour mode as RGB tensors."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from underfire.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_FLOAT_MODES = ("F", "I", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | os.PathLike[str], *, size: int | None = None) -> Tensor:
    """Return an image file as RGB, float `[3, H, W]` in `[0, 1]`.

    Greyscale, palette, CMYK and 16-bit images are converted, transparent images are put on white, and the orientation
    in the metadata is applied. If `size` is given, the short side is scaled to `size * 8 / 7` (256 for 224, as is usual
    for ImageNet) and the image is cropped to the middle `size` x `size`.

    Raises:
        DataError: the file is missing, empty, truncated, no image, or larger than Pillow's decompression-bomb limit.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"there is no image file {str(file)!r}")
    return decode(file.read_bytes(), name=str(file), size=size)


def decode(content: bytes, *, name: str, size: int | None = None) -> Tensor:
    """Return the bytes of an image file as RGB, float `[3, H, W]` in `[0, 1]`; `name` is for error messages."""
    if not content:
        raise DataError(f"{name!r} is empty, not an image")
    if size is not None and size < 1:
        raise DataError(f"size must be at least 1 pixel, got {size}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata does not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return from_pillow(image, name=name, size=size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise DataError(f"{name!r} has more than the {limit} pixels that are allowed") from error
    except DataError:
        raise
    except Exception as error:  # a decoder may raise any error on a damaged file
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name!r} cannot be read as an image: {reason}".splitlines()[0]) from error


def from_pillow(image: Image.Image, *, name: str, size: int | None = None) -> Tensor:
    """Return a Pillow image of any mode as RGB, float `[3, H, W]` in `[0, 1]`."""
    pixels = _to_float(ImageOps.exif_transpose(image), size)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise DataError(
            f"{name!r} has pixels from {float(tensor.min()):.3g} to {float(tensor.max()):.3g}, outside [0, 1]"
        )
    return tensor


def _to_float(image: Image.Image, size: int | None) -> np.ndarray:
    """Return the pixels `[H, W, 3]`, float32; 16-bit greyscale keeps its depth."""
    if image.mode in _FLOAT_MODES:
        grey = np.asarray(image, dtype=np.float32) / (1.0 if image.mode == "F" else 65535.0)
        resized = _fit(Image.fromarray(grey), size)
        # bicubic interpolation exceeds the range of the image; values of the file outside [0, 1] stay, and raise later
        values = np.asarray(resized).clip(grey.min(), grey.max())
        return np.repeat(values[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(_fit(image.convert("RGB"), size), dtype=np.float32) / 255.0


def _fit(image: Image.Image, size: int | None) -> Image.Image:
    """Scale the short side to `size * 8 / 7` and crop the middle `size` x `size`; None returns the image as it is."""
    if size is None:
        return image
    side = min(image.size) * size / round(size * 8 / 7)
    left, top = ((length - side) / 2 for length in image.size)
    if side == size:  # the scale is right already: copy pixels instead of interpolating
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
