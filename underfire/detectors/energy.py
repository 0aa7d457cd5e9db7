"""Energy (Liu, Wang, Owens and Li, NeurIPS 2020): an image to which the model gives small logits is suspicious."""

from __future__ import annotations

from torch import Tensor

from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated
from underfire.errors import InputError, shown
from underfire.model import Classifier


@card(
    "detector",
    name="energy",
    paper="Liu, Wang, Owens and Li, Energy-based Out-of-distribution Detection, NeurIPS 2020",
    differentiable=True,
)
class Energy(Detector):
    """Score an image by its energy `-T log Σ_k exp(f_k / T)`; nothing is learned from clean images.

    Args:
        temperature: T.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, got {shown(temperature)}")
        self.temperature = temperature

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        return {"clean_mean": self._score(model, clean, {}).mean()}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return -self.temperature * (inputs.logits / self.temperature).logsumexp(1)
