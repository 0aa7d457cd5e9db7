"""Inputs with what a model returns for them, and the choice of those that a detector learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from underfire.errors import DataError
from underfire.hooks import Probe, features, stream_features
from underfire.model import Classifier
from underfire.records import Batch
from underfire.validate import require_finite


@dataclass(frozen=True)
class Evaluated:
    """Inputs with the output of a model and the features of its layers.

    Attributes:
        x: inputs `[B, ...]`.
        logits: the output of the model, `[B, K]`.
        features: the features `[B, D]` of every probe (see `hooks.features`).
        y: labels, int64 `[B]`; None if they are not known, as in a score.
        ids: the names of the inputs; empty if they are not known.
    """

    x: Tensor
    logits: Tensor
    features: Mapping[Probe, Tensor] = field(default_factory=dict)
    y: Tensor | None = None
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def predicted(self) -> Tensor:
        """Return the predicted classes, int64 `[B]`."""
        return self.logits.detach().argmax(1)


@dataclass(frozen=True)
class Choice:
    """The inputs that a detector learns from, and the layers that it reads of them.

    Attributes:
        probes: what it reads.
        correct: keep only inputs that the model classifies as their label (True) or as another class (False); None
            keeps all.
        most: keep at most this number of inputs of each label, the first ones; None keeps all.
    """

    probes: tuple[Probe, ...] = ()
    correct: bool | None = None
    most: int | None = None


def evaluate(model: Classifier, x: Tensor, probes: Sequence[Probe] = ()) -> Evaluated:
    """Return the inputs with logits and features, in the graph of one forward pass.

    Raises:
        ModelError: logits or features are not finite.
    """
    logits, found = features(model, x, probes)
    return Evaluated(x, require_finite(logits, "the model's output"), found)


def evaluate_for(model: Classifier, batch: Batch, choices: Sequence[Choice]) -> list[tuple[Evaluated, tuple[str, ...]]]:
    """Return what each choice keeps of a batch, from one pass over it, and the names of the inputs that it drops.

    The inputs that are left out because there are enough of their label do not count as dropped.

    Raises:
        ModelError: logits or features are not finite. DataError: the labels do not fit.
    """
    if batch.y.shape != (len(batch),) or batch.y.dtype != torch.int64:
        raise DataError(f"labels must be int64 [{len(batch)}], got {batch.y.dtype} {tuple(batch.y.shape)}")
    takers = [_Taker(choice) for choice in choices]
    probes = dict.fromkeys(probe for choice in choices for probe in choice.probes)
    y, start = batch.y.to(batch.x.device), 0
    for logits, found in stream_features(model, batch.x, probes):
        require_finite(logits, "the model's output")
        for taker in takers:
            taker.take(start, y[start : start + len(logits)], logits, found)
        start += len(logits)
    return [(taker.result(batch, y), tuple(batch.ids[row] for row in taker.dropped)) for taker in takers]


class _Taker:
    """Collect the rows that one choice keeps, chunk by chunk."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.dropped: list[int] = []
        self.rows: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.found: dict[Probe, list[Tensor]] = {probe: [] for probe in choice.probes}
        self.counts: Tensor | None = None  # the inputs of each label that were kept so far, [K]

    def take(self, start: int, y: Tensor, logits: Tensor, found: Mapping[Probe, Tensor]) -> None:
        """Keep rows of the chunk that begins at the input `start`."""
        kept = torch.ones_like(y, dtype=torch.bool)
        if self.choice.correct is not None:
            kept = (logits.argmax(1) == y) == self.choice.correct
            self.dropped += (start + (~kept).nonzero().flatten()).tolist()
        if self.choice.most is not None:
            kept &= self._places(y, logits.shape[1], kept) <= self.choice.most
        rows = kept.nonzero().flatten()
        self.rows.append(start + rows)
        self.logits.append(logits[rows])
        for probe, values in self.found.items():
            values.append(found[probe][rows])

    def _places(self, y: Tensor, classes: int, kept: Tensor) -> Tensor:
        """Return the place of each input among those of its label that are kept, counted from 1."""
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise DataError(f"labels must be classes from 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}")
        one_hot = torch.nn.functional.one_hot(y, classes) * kept[:, None]
        before = self.counts if self.counts is not None else one_hot.new_zeros(classes)
        self.counts = before + one_hot.sum(0)
        return (before + one_hot.cumsum(0)).gather(1, y[:, None]).flatten()

    def result(self, batch: Batch, y: Tensor) -> Evaluated:
        """Return the kept inputs."""
        rows = torch.cat(self.rows)
        whole = len(rows) == len(batch)
        return Evaluated(
            x=batch.x if whole else batch.x[rows],
            logits=torch.cat(self.logits),
            features={probe: torch.cat(values) for probe, values in self.found.items()},
            y=y[rows],
            ids=batch.ids if whole else tuple(batch.ids[row] for row in rows.tolist()),
        )
