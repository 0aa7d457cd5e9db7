"""Ensemble interpretation (Zhang et al., USENIX Security 2020, section 6.2): maps that disagree are suspicious."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from underfire.attribution.named import named_interpreters
from underfire.catalog import card
from underfire.detectors.detector import Detector, in_chunks
from underfire.detectors.evaluated import Evaluated
from underfire.errors import InputError, Unsupported
from underfire.measures.maps import normalise, resize
from underfire.model import Classifier


@card(
    "detector",
    name="ensemble_interpretation",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    differentiable=True,
)
class EnsembleInterpretation(Detector):
    """Score an image by how much complementary interpreters disagree about it, relative to clean images.

    An attack that keeps the map of one interpreter leaves those of the others changed, so that the maps no longer fit
    together. For each pair of interpreters, the distance of their maps of the predicted class is standardised by mean
    and standard deviation on clean images; the score is the mean over the pairs, `[B]`. The paper names the idea and
    leaves the aggregation open; this one is ours. The maps are brought to the coarsest grid among them, and min-max
    normalised.

    Args:
        interpreters: two or more interpreters: names of the catalogue, mappings of a `name` and options, or functions
            `(model, x, y) -> map`. A map without a gradient, such as that of `lime`, is a constant for an attack.

    Raises:
        InputError: there are fewer than two, one is unknown or given twice, or it gives no maps.
    """

    least = 2

    def __init__(
        self, *, interpreters: tuple[str | Mapping[str, Any] | Callable[..., Tensor], ...] = ("gradient", "grad_cam")
    ) -> None:
        self.interpreters, self._methods = interpreters, named_interpreters(interpreters)
        if len(interpreters) < 2 or any(one == other for one, other in combinations(interpreters, 2)):
            raise InputError(f"an ensemble needs two or more different interpreters, got {interpreters!r:.200}")

    def maps(self, model: Classifier, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the maps of class `y` of all interpreters on one grid, min-max normalised, `[B, 1, h, w]` each."""
        maps = [method(model, x, y) for method in self._methods]
        size = min(m.shape[2] for m in maps), min(m.shape[3] for m in maps)
        return [normalise(resize(normalise(m), size)) for m in maps]

    def _distances(self, model: Classifier, x: Tensor, logits: Tensor) -> Tensor:
        """Return the mean absolute difference of the maps of each pair of interpreters, `[B, P]`."""
        maps = self.maps(model, x, logits.detach().argmax(1))
        return torch.stack([(m - n).abs().mean((1, 2, 3)) for m, n in combinations(maps, 2)], 1)

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        parts = zip(in_chunks(clean.x), in_chunks(clean.logits), strict=True)
        distances = torch.cat([self._distances(model, x, logits) for x, logits in parts])
        std = distances.std(0)
        if bool((std == 0).any()):
            raise Unsupported("two interpreters always differ by the same amount, so that nothing can be standardised")
        return {"mean": distances.mean(0), "std": std}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return ((self._distances(model, inputs.x, inputs.logits) - learned["mean"]) / learned["std"]).mean(1)
