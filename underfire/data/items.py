"""Read images and labels that are Python objects: Pillow images, tensors, arrays, class numbers and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire.data.images import AS_IT_IS, Reading, from_pillow
from underfire.errors import DataError

INPUTS = ("x", "image", "img", "input", "pixel_values")
LABELS = ("y", "label", "labels", "fine_label", "target")


def parts(item: Any) -> tuple[Any, Any]:
    """Return the image and the label of an item: a pair, a mapping or an image without a label, whose label is None.

    Several images with their labels, as a DataLoader yields them, are an item, too.

    Raises:
        DataError: it is a pair or a mapping without an image.
    """
    if isinstance(item, Mapping):
        image, label = (next((item[key] for key in keys if key in item), None) for keys in (INPUTS, LABELS))
        if image is None:
            raise DataError(f"an item needs an image ({', '.join(INPUTS)}), it has {', '.join(map(str, item))}")
        return image, label
    if isinstance(item, (tuple, list)):
        if len(item) < 2:
            raise DataError(f"an item must be a pair of an image and its label, got {len(item)} of the two")
        return item[0], item[1]
    return item, None


def class_names(data: Any) -> tuple[str, ...] | None:
    """Return the names of the classes in the attribute `classes` of a data set, as torchvision's have; None without."""
    names = getattr(data, "classes", None)
    known = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(k, str) for k in names)
    return tuple(names) if known and names else None


def read_label(label: Any, names: Sequence[str] | None, name: str) -> int:
    """Return a label, which may be a number, an array of one number, or the name of a class, as a class number.

    Raises:
        DataError: it is none of these; `name` is that of its image.
    """
    number = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(number, list) and len(number) == 1:
        number = number[0]
    if isinstance(number, str) and number in (names or ()):
        return list(names or ()).index(number)
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) >= 2**63:
        raise DataError(f"the label of {name!r} must be a class number, or a name in `classes`; got {label!r:.60}")
    return number


def read_item(image: Any, name: str, reading: Reading = AS_IT_IS) -> Tensor:
    """Return an image as a tensor `[C, H, W]`; `name` is for error messages.

    It is a Pillow image, a tensor `[C, H, W]`, or an array `[H, W]`, `[C, H, W]` or, of bytes, `[H, W, C]`.

    Raises:
        DataError: it is none of these, or larger than `reading` allows.
    """
    if isinstance(image, Image.Image):
        return from_pillow(image, name=name, reading=reading)
    x = read_numbers(image, 3, name)
    reading.check(x.shape[2], x.shape[1], repr(name))
    return x.mean(0, keepdim=True) if reading.mode == "L" and x.shape[0] == 3 else x


def read_numbers(values: Any, dims: int, name: str) -> Tensor:
    """Return one image (`dims` 3) or several (4) that are numbers: bytes, which are divided by 255, or in `[0, 1]`.

    Raises:
        DataError: they are neither a tensor nor an array of `dims` dimensions; one image may leave out the channel.
    """
    try:
        x = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise _wrong(name, type(values).__name__) from None
    if x.dim() == 2 and dims == 3:
        x = x[None]
    if x.dim() != dims or x.dtype == torch.bool or x.is_complex():
        raise _wrong(name, f"{x.dtype} {tuple(x.shape)}")
    x = x.cpu()
    last = x.shape[-1] in (1, 3, 4) and x.shape[-3] not in (1, 3)  # the channels
    if isinstance(values, np.ndarray) and x.dtype == torch.uint8 and last:
        x = x.movedim(-1, -3)  # as Pillow and OpenCV store images
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()


def _wrong(name: str, got: str) -> DataError:
    return DataError(f"image {name!r} must be a Pillow image, a tensor [C, H, W] or an array, got {got}")
