"""Read image files of any size and colour mode as RGB or grey tensors."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from underfire.data.dataset import stack, unreadable
from underfire.errors import DataError, nearest
from underfire.files import as_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
#: Endings of image files of other kinds: such a file is named in an error, never passed over.
OTHER_SUFFIXES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".svg", ".eps", ".ps", ".pdf", ".psd", ".ico", ".tga", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".hdr", ".exr"),
)
MAX_PIXELS = 40_000_000
"""The largest number of pixels of one image, unless an option says otherwise; a batch may have 16 times as many."""
MAX_BYTES = 2**30
"""The largest size of a file of images, or of an array that is unpacked from one, unless an option says otherwise."""
_BATCH = 16
_FLOAT_MODES = ("F", "I", "I;16", "I;16L", "I;16B", "I;16N")
# Only these decoders are tried, whatever the file's name: the one for EPS, for example, starts another program.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
_pillow_limit = Lock()


@dataclass(frozen=True)
class Reading:
    """How image files become tensors.

    Attributes:
        size: side in pixels to which images are scaled and cropped; None keeps their size.
        mode: `"RGB"`, or `"L"` for grey images of one channel.
        max_pixels: the largest number of pixels of an image, in the file and after scaling.

    Raises:
        DataError: the size is below 1 or beyond `max_pixels`, or the mode is unknown.
    """

    size: int | None = None
    mode: str = "RGB"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise DataError(f"size must be at least 1 pixel, got {self.size}")
        if self.mode not in ("RGB", "L"):
            raise DataError(f"unknown mode {self.mode!r}; {nearest(self.mode, ('RGB', 'L'))}")
        if self.size is not None:
            self.check(self.size, self.size, f"size={self.size}")

    def check(self, width: int, height: int, name: str) -> None:
        """Raise DataError if an image is larger than `max_pixels`; `name` begins the message."""
        if width * height > self.max_pixels:
            raise DataError(
                f"{name} gives {width} x {height} pixels, more than the {self.max_pixels} that are allowed; "
                f"max_pixels={width * height} allows them"
            )


AS_IT_IS = Reading()
"""RGB images of their own size."""


def read_image(
    path: str | os.PathLike[str], *, size: int | None = None, mode: str = "RGB", max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Return an image file as RGB or grey, float `[3, H, W]` or `[1, H, W]` in `[0, 1]`.

    Greyscale, palette, CMYK and 16-bit images are converted, transparent images are put on white, and the orientation
    in the metadata is applied. If `size` is given, the short side is scaled to `size * 8 / 7` (256 for 224, as is usual
    for ImageNet) and the image is cropped to the middle `size` x `size`. The mode `"L"` returns grey images. An image
    with more than `max_pixels` pixels is refused before it is unpacked.

    Raises:
        DataError: the file is missing, empty, truncated, no image of a kind that is read, or too large.
    """
    return read_file(as_path(path), Reading(size, mode, max_pixels))


def read_file(file: Path, reading: Reading) -> Tensor:
    """Return an image file as a tensor `[C, H, W]`; the same as `read_image`."""
    try:
        if not file.is_file():
            raise DataError(f"there is no image file {str(file)!r}")
        if file.suffix.lower() in OTHER_SUFFIXES:
            raise DataError(f"{str(file)!r}: {file.suffix} is a kind of image that is not read; convert it to PNG")
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{str(file)!r} is larger than the {MAX_BYTES >> 20} MB that an image file may have")
        return decode(file.read_bytes(), name=str(file), reading=reading)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(file)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def decode(content: bytes, *, name: str, reading: Reading = AS_IT_IS) -> Tensor:
    """Return the bytes of an image file as a tensor `[C, H, W]` in `[0, 1]`; `name` is for error messages."""
    if not content:
        raise DataError(f"{name!r} is empty, not an image")
    try:
        with warnings.catch_warnings(), _limit(reading.max_pixels):
            warnings.simplefilter("ignore")  # unusual metadata does not matter here
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return from_pillow(image, name=name, reading=reading)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"more than the {reading.max_pixels} pixels that are allowed; max_pixels=N allows N"
        raise DataError(f"{name!r} has {limit}") from error
    except Exception as error:  # a decoder may raise any error on a damaged file
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name!r} cannot be read as an image: {reason}".splitlines()[0]) from error


@contextmanager
def _limit(pixels: int) -> Iterator[None]:
    """Raise Pillow's own limit, which is global, while an image may be larger; `from_pillow` checks the size."""
    if Image.MAX_IMAGE_PIXELS is None or pixels <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def from_pillow(image: Image.Image, *, name: str, reading: Reading = AS_IT_IS) -> Tensor:
    """Return a Pillow image of any mode as a tensor `[C, H, W]` in `[0, 1]`; its pixels are not unpacked before."""
    reading.check(*image.size, repr(name))
    tensor = torch.tensor(_pixels(ImageOps.exif_transpose(image), reading)).permute(2, 0, 1).contiguous()
    if tensor.dtype == torch.uint8:
        return tensor.float().div_(255)
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise DataError(
            f"{name!r} has pixels from {float(tensor.min()):.3g} to {float(tensor.max()):.3g}, outside [0, 1]"
        )
    return tensor


def gather(ids: Sequence[str], read: Callable[[int], Tensor], reading: Reading) -> Tensor:
    """Return the images `read(0), read(1), ...` as one batch `[B, C, H, W]`; `ids` are their names.

    Raises:
        DataError: images cannot be read (the message names all of them), differ in size, or are too large together.
    """
    if not ids:
        return torch.zeros(0, 1 if reading.mode == "L" else 3, 1, 1, dtype=torch.float32)
    images: list[Tensor] = []
    failures: list[str] = []
    for i, _ in enumerate(ids):
        try:
            images.append(read(i))
        except DataError as error:
            failures.append(str(error))
            continue
        if images[0][0].numel() * len(ids) > _BATCH * reading.max_pixels:
            height, width = images[0].shape[1:]
            raise DataError(
                f"{len(ids)} images of {width} x {height} pixels are too many for one batch; add ?size=224 to the URI, "
                "or make batch_size and shard_size smaller"
            )
    if failures:
        raise DataError(unreadable(failures, len(ids)))
    return stack(images, ids)


def _pixels(image: Image.Image, reading: Reading) -> np.ndarray:
    """Return the pixels `[H, W, C]`, uint8; those of 16-bit greyscale, which keeps its depth, as float32."""
    if image.mode in _FLOAT_MODES:
        grey = np.asarray(image, dtype=np.float32) / (1.0 if image.mode == "F" else 65535.0)
        resized = _fit(Image.fromarray(grey), reading.size)
        # bicubic interpolation exceeds the range of the image; values of the file outside [0, 1] stay, and raise later
        values = np.asarray(resized).clip(grey.min(), grey.max())
        return np.repeat(values[:, :, None], 1 if reading.mode == "L" else 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    values = np.asarray(_fit(image.convert(reading.mode), reading.size))
    return values.reshape(*values.shape[:2], -1)


def _fit(image: Image.Image, size: int | None) -> Image.Image:
    """Scale the short side to `size * 8 / 7` and crop the middle `size` x `size`; None returns the image as it is."""
    if size is None:
        return image
    side = min(image.size) * size / round(size * 8 / 7)
    left, top = ((length - side) / 2 for length in image.size)
    if side == size:  # the scale is right already: copy pixels instead of interpolating
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
