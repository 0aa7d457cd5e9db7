"""Frozen records of tensors and plain values: batches, examples, confidence intervals and checks of an audit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs with their labels, as a data source yields them.

    Attributes:
        x: inputs `[B, ...]`; images are float `[B, C, H, W]` in `[0, 1]`.
        y: labels, int64 `[B]`.
        ids: a stable name for every sample, unique within its source.
        mask: True at the pixels that show the object of the label, bool `[B, 1, H, W]`; None if they are not known.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the inputs and the labels, so that `x, y = batch` works."""
        return iter((self.x, self.y))

    def take(self, index: Tensor) -> Batch:
        """Return the samples at `index` (int64 `[n]`), in that order."""
        mask = None if self.mask is None else self.mask[index]
        return Batch(self.x[index], self.y[index], tuple(self.ids[i] for i in index.tolist()), mask)

    def to(self, device: str) -> Batch:
        """Return the batch on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, x=self.x.to(device), y=self.y.to(device), mask=mask)


@dataclass(frozen=True)
class Examples:
    """Known images that explain other images: `k` examples for each of `B` images, the best one first.

    Attributes:
        index: indices of the known images, int64 `[B, k]`; -1 where there are fewer than `k`.
        distance: distance of each example from the image, in the space that the method compares images in, `[B, k]`.
        x: the examples, `[B, k, C, H, W]`.
        y: their labels, int64 `[B, k]`.
        ids: their names, `k` for each image.
        notes: the role of each example, such as `"prototype"` or `"criticism"`.
    """

    index: Tensor
    distance: Tensor
    x: Tensor
    y: Tensor
    ids: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval and the number of samples."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


@dataclass(frozen=True)
class Check:
    """One check of whether the numbers of an audit can be trusted.

    Attributes:
        name: a stable identifier, such as `"more_steps"`.
        passed: whether the check passed; if not, the report shows a warning with its name.
        value: the measured number.
        limit: the threshold that `value` is compared with.
        detail: one sentence that explains the result to the reader of the report.
        rival: the attack without a gradient that the check compares with the attack it checks; empty if none.
        hits: number of images that the rival fools within the size of the attack; None without a rival.
        images: number of images that were checked, all of them classified correctly; None without a rival.
    """

    name: str
    passed: bool
    value: float
    limit: float
    detail: str
    rival: str = ""
    hits: int | None = None
    images: int | None = None
