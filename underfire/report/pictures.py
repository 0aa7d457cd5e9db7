"""Pictures of the page: images, magnified changes and maps, as data URIs that are exact or small."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from underfire.figures.overlay import colour_bar, to_data_uri, to_image

Step = tuple[int, int]  # the largest side in pixels and the JPEG quality of a photograph
_PHOTOGRAPH = 128  # the side in pixels from which a picture is compressed
_BUDGET = 2_600_000  # bytes of all photographs together, so that the page on paper has at most 4 MB
_STEPS: tuple[Step, ...] = ((640, 85), (448, 82), (320, 78), (224, 72), (160, 65))


@dataclass(frozen=True)
class Drawing:
    """A picture that is not encoded yet: `[1 or 3, H, W]` in [0, 1], its alternative text, and the note below it."""

    image: Tensor
    alt: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its data URI, its alternative text, its size in pixels, and the note below it."""

    uri: str
    alt: str
    width: int
    height: int
    note: str = ""


def step(some: Sequence[Tensor], times: int) -> Step:
    """Return the best size and quality of photographs with which `times` as many images as `some` fit on the page."""
    for found in _STEPS:
        if sum(len(_jpeg(image, *found)[0]) for image in some) * times <= _BUDGET:
            break
    return found


def encode(drawing: Drawing, at: Step) -> Picture:
    """Return a small picture exactly, and a large one as a JPEG file, which a browser puts into a PDF as it is."""
    image, (height, width) = drawing.image, drawing.image.shape[-2:]
    if max(height, width) < _PHOTOGRAPH:
        return Picture(to_data_uri(image), drawing.alt, width, height, drawing.note)
    content, (width, height) = _jpeg(image, *at)
    uri = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    return Picture(uri, drawing.alt, width, height, drawing.note)


def gradient(signed: bool) -> str:
    """Return the colours of maps as a CSS gradient, from the smallest value to the largest.

    Args:
        signed: whether the map has negative values.
    """
    colours = (colour_bar(signed)[:, 0, ::15].T * 255).round().int().tolist()
    return f"linear-gradient(to right, {', '.join('#{:02x}{:02x}{:02x}'.format(*colour) for colour in colours)})"


def _jpeg(image: Tensor, side: int, quality: int) -> tuple[bytes, tuple[int, int]]:
    photograph, buffer = to_image(image), io.BytesIO()
    photograph.thumbnail((side, side))
    photograph.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue(), photograph.size
