"""Kernel density and Bayesian uncertainty in one score, by a logistic regression (Feinman et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from underfire.catalog import card
from underfire.detectors.evaluated import Evaluated, evaluate
from underfire.detectors.kernel_density.bayesian_uncertainty import BayesianUncertainty, uncertainty
from underfire.detectors.kernel_density.kernel_density import PAPER, KernelDensity
from underfire.detectors.regression import fit_regression, log_odds, noisy_like
from underfire.hooks import Probe
from underfire.model import Classifier


@card("detector", name="kernel_density_and_uncertainty", paper=PAPER, supervised=True, differentiable=True)
class KernelDensityAndUncertainty(KernelDensity):
    """Score an image by a logistic regression on its kernel density and its Bayesian uncertainty.

    The score is the log-odds that the image is attacked. The regression learns from the clean images, noisy copies of
    them and attacked images. The arguments are those of `kernel_density` and `bayesian_uncertainty`. With `held_out`,
    the density of a clean image that the regression learns from leaves out its own kernel; without it, as in the
    authors' script, the clean images look more usual than new ones are.

    Args:
        matched_noise: whether noisy copies of the clean images, with noise as large as the attack, count as not
            attacked too, as in the paper.
    """

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        pooling: str = "mean",
        bandwidth: float | str | None = None,
        held_out: bool = True,
        per_class: int | None = None,
        samples: int = 50,
        matched_noise: bool = True,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(layers=layers, pooling=pooling, bandwidth=bandwidth, held_out=held_out, per_class=per_class)
        self.samples, self.matched_noise = samples, matched_noise
        self._uncertainty = BayesianUncertainty(samples=samples, generator=generator)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options; a file needs no generator, since the fit has drawn from it."""
        names = ("layers", "pooling", "bandwidth", "held_out", "per_class", "samples", "matched_noise")
        return {name: getattr(self, name) for name in names}

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        assert attacked is not None
        (probe,) = clean.features
        learned = self._uncertainty._learn(model, clean, None) | super()._learn(model, clean, None)
        usual = [clean]
        if self.matched_noise:
            usual.append(evaluate(model, noisy_like(clean, attacked), (probe,)))
        features = [self._features(model, inputs, probe, learned) for inputs in (*usual, attacked)]
        return learned | fit_regression(torch.cat(features[:-1]), features[-1])

    def _features(self, model: Classifier, inputs: Evaluated, probe: Probe, learned: dict[str, Tensor]) -> Tensor:
        """Return minus the log-density, and the uncertainty, `[B, 2]`."""
        improbable = self.improbability(inputs, probe, learned)
        return torch.stack([improbable, uncertainty(model, inputs.x, self.samples, int(learned["seed"]))], 1)

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        (probe,) = self.fitted().probes
        return log_odds(self._features(model, inputs, probe, learned), learned)
