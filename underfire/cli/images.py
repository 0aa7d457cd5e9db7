"""Open the images that `attack` and `explain` work on: one file, a folder of files, or a data URI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underfire.errors import DataError, InputError
from underfire.records import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.data.images import Reading
    from underfire.model import Classifier

_URI_DEFAULT = 8


@dataclass(frozen=True)
class ImageInput:
    """Images in batches, with their file names without suffix and whether their labels are known."""

    batches: Iterator[Batch]
    stems: tuple[str, ...]
    labelled: bool


def open_images(
    place: str,
    *,
    n: int | None,
    size: int | None,
    batch_size: int,
    seed: int,
    model: Classifier | None = None,
) -> ImageInput:
    """Open the images at `place` for a model; image files have no labels, and are grey for a model of one channel.

    Args:
        place: an image file, a folder (with its subfolders), or a data URI.
        n: number of images to draw at random; None takes all files, or up to 8 images of a data URI.
        size: side in pixels to which image files are scaled and cropped; None keeps their size.
        batch_size: largest number of images in a batch; all images of a batch have one shape.
        seed: the seed of the draw.
        model: the model, with whose classes those of a data URI are compared by name; None compares nothing.

    Raises:
        DataError: there are no images, or fewer than `n`, or a file is not an image, or a class of the data is not one
            of the model's.
    """
    from underfire import data
    from underfire.audit.labels import open_data
    from underfire.data.folders import image_files
    from underfire.data.images import SUFFIXES, Reading
    from underfire.data.uris import SCHEMES
    from underfire.hooks import channels_of

    path, reading = Path(place), Reading(size, "L" if model is not None and channels_of(model) == 1 else "RGB")
    if path.is_dir():
        files = [path / name for name in image_files(path)]
        if not files:
            raise DataError(f"no images in {place!r}; their names must end in {', '.join(SUFFIXES)}")
        files = _draw(files, n, seed, path)
        stems = _stems([str(file.relative_to(path)) for file in files])
        return ImageInput(_read(path, files, reading, batch_size), stems, False)
    if path.exists():
        return ImageInput(_read(path.parent, [path], reading, batch_size), (path.stem,), False)
    if not re.match(r"[\w-]{2,}:", place):  # a single letter before the colon is a drive of Windows
        hint = f"; the data URI is {place}:" if place in SCHEMES else ""
        raise DataError(f"no such image, folder or data URI: {place!r}{hint}")
    if size is not None:
        raise InputError("--size applies to image files; a data URI states its own, as in folder:PATH?size=224")
    dataset = data.load(place) if model is None else open_data(place, model)
    dataset = dataset.subset(min(_URI_DEFAULT, len(dataset)) if n is None else n, seed)
    ids = [name for batch in dataset.batches(256) for name in batch.ids]
    return ImageInput(dataset.batches(batch_size), _stems(ids), True)


def _draw(files: list[Path], n: int | None, seed: int, path: Path) -> list[Path]:
    """Return `n` files of the folder `path`, drawn at random, in their order; None returns all."""
    if n is None:
        return files
    if n > len(files):
        raise DataError(f"--n {n} asks for more than the {len(files)} images in {path}")
    import torch

    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:n]
    return [files[i] for i in sorted(order.tolist())]


def _stems(names: list[str]) -> tuple[str, ...]:
    """Return safe file names without suffix; number all of them if two would clash on a case-insensitive disk."""
    safe = [re.sub(r"[^\w=-]+", "_", str(Path(name).with_suffix(""))).strip("_") for name in names]
    if len({name.lower() for name in safe}) < len(safe):
        safe = [f"{i:04d}_{name}" for i, name in enumerate(safe)]
    return tuple(safe)


def _read(root: Path, files: list[Path], reading: Reading, batch_size: int) -> Iterator[Batch]:
    """Yield image files in batches of one shape, without labels, which are -1."""
    import torch

    from underfire.classes import printable
    from underfire.data.dataset import unreadable
    from underfire.data.images import read_file

    pending: list[tuple[str, Tensor]] = []

    def batch() -> Batch:
        x = torch.stack([image for _, image in pending])
        return Batch(x, torch.full((len(x),), -1), tuple(printable(name) for name, _ in pending))

    for i, file in enumerate(files):
        try:
            image = read_file(file, reading)
        except DataError as error:  # name all files that cannot be read, not only the first
            raise DataError(unreadable([str(error), *_failures(files[i + 1 :], reading)], len(files))) from None
        if pending and (image.shape != pending[0][1].shape or len(pending) == batch_size):
            yield batch()
            pending.clear()
        pending.append((file.relative_to(root).as_posix(), image))
    yield batch()


def _failures(files: list[Path], reading: Reading) -> Iterator[str]:
    """Yield why image files cannot be read."""
    from underfire.data.images import read_file

    for file in files:
        try:
            read_file(file, reading)
        except DataError as error:
            yield str(error)
