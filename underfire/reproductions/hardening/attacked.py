"""Find the images that an attack leaves wrongly classified, part by part, and keep the answers in the work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Progress
from underfire.reproductions.transfer.page import show

Attack: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""`(model, x, y) -> x'`; with `functools.partial` also with options."""
Hits: TypeAlias = NDArray[np.float64]
"""1 for each image that is classified correctly, and 0 for the others, `[n]`."""


def clean(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the images as they are: the attack that does nothing."""
    return x


@dataclass(frozen=True)
class Trial:
    """Test images that networks classify under attacks.

    Attributes:
        batch: the images, on the device of the networks.
        store: the folder of what is finished.
        progress: told about each part.
        part: the number of images that are attacked at once; an interrupted run loses one part.
    """

    batch: Batch
    store: Store
    progress: Progress
    part: int = 100

    def correct(
        self, label: str, attack: Attack, model: Classifier, *, victim: Classifier | None = None, n: int | None = None
    ) -> Hits:
        """Return which images are classified correctly under an attack.

        Args:
            label: a name for the attack and the networks, which no other call has.
            attack: the attack.
            model: the network that the attack knows.
            victim: the network that classifies the attacked images; None is `model`.
            n: take the first `n` images; None takes all.
        """
        judge = model if victim is None else victim

        def compute(part: Batch) -> Tensor:
            return (judge.predict(attack(model, part.x, part.y)).argmax(1) == part.y).cpu()

        rows = self.store.in_parts(label, self._first(n), self.part, compute, self.progress)
        found: Hits = rows.double().numpy()
        return found

    def images(self, label: str, attack: Attack, model: Classifier, *, n: int | None = None) -> Batch:
        """Return the images that an attack makes, with the labels of the clean images."""
        batch = self._first(n)
        x = self.store.in_parts(label, batch, self.part, lambda part: attack(model, part.x, part.y), self.progress)
        return Batch(x.to(batch.x.device), batch.y, batch.ids)

    def _first(self, n: int | None) -> Batch:
        return self.batch if n is None else Batch(self.batch.x[:n], self.batch.y[:n], self.batch.ids[:n])


def right(model: Classifier, batch: Batch) -> Hits:
    """Return which images of a batch a network classifies correctly."""
    found: Hits = (model.predict(batch.x).argmax(1) == batch.y).double().cpu().numpy()
    return found


def accuracy(hits: Hits) -> str:
    """Return the share of correct images in per cent, with its 95 % Clopper-Pearson interval."""
    return show(rate(hits))
