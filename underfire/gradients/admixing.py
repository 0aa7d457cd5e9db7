"""Admix: scaled copies of an image, mixed with a small share of images of other classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.gradients.views import Rows, RowView, View
from underfire.validate import at_least_one


def admix(copies: int = 5, samples: int = 3, eta: float = 0.2, others: tuple[Tensor, Tensor] | None = None) -> RowView:
    """Yield `(x + eta * x') / 2^i` for `samples` random images `x'` of other classes, and each `i < copies` (Admix).

    Every image of the batch has its own draws. Where there is no image of another class, as in a batch of one
    image, an image of the same class takes its place. An image of another size, because a view comes before this one,
    is resized.

    Args:
        copies: number of scaled copies of every mixture, the paper's m1.
        samples: number of images that are mixed in, one for each mixture; the paper's m2.
        eta: weight of the image that is mixed in, the paper's eta.
        others: images and their labels, from which those to mix in are drawn; None is the clean batch of the attack.

    Raises:
        InputError: an argument is out of its range, or `others` have another number of labels than images.

    Source: Wang et al., Admix: Enhancing the Transferability of Adversarial Attacks, ICCV 2021.
    """
    at_least_one(copies=copies, samples=samples)
    if not 0 <= eta <= 1:
        raise InputError(f"admix needs eta in [0, 1], got {eta}")
    if others is not None and not len(others[0]) == len(others[1]) > 0:
        raise InputError(f"admix needs others with a label for each image, got {len(others[0])} and {len(others[1])}")

    def of(rows: Rows) -> View:
        images, labels = (rows.images, rows.labels) if others is None else others
        images, other = images.to(rows.images), labels.to(rows.y) != rows.y[:, None]

        def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
            resized = images
            if images.shape[2:] != x.shape[2:]:
                resized = F.interpolate(images, x.shape[2:], mode="bilinear", align_corners=False)
            for _ in range(samples):
                lot = torch.rand(other.shape, generator=generator, device=x.device, dtype=x.dtype)
                mixed = x + eta * resized[(lot + other).argmax(1)]  # an image of another class has a lot above 1
                for i in range(copies):
                    yield mixed / 2**i

        return view

    return RowView(of)
