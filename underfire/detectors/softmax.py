"""Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017): an uncertain prediction is suspicious."""

from __future__ import annotations

from torch import Tensor

from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated
from underfire.model import Classifier


@card(
    "detector",
    name="softmax",
    paper="Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural "
    "Networks, ICLR 2017",
    differentiable=True,
)
class Softmax(Detector):
    """Score an image by one minus the largest probability of the model; nothing is learned from clean images."""

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        return {"clean_mean": self._score(model, clean, {}).mean()}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        others = inputs.logits.softmax(1).scatter(1, inputs.predicted[:, None], 0.0)
        return others.sum(1)  # 1 minus the largest, without its rounding error
