"""Kernel density (Feinman et al. 2017): features unlike those of clean images of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.kernel_density.densities import best_bandwidth, class_log_density
from underfire.errors import InputError
from underfire.hooks import Probe, choose_probes
from underfire.model import Classifier

#: The bandwidths of the paper by data set, for the networks of the paper.
BANDWIDTHS = {"mnist": 1.20, "cifar10": 0.26, "svhn": 1.00}

PAPER = "Feinman, Curtin, Shintre and Gardner, Detecting Adversarial Samples from Artifacts, 2017"


@card("detector", name="kernel_density", paper=PAPER, differentiable=True)
class KernelDensity(Detector):
    """Score an image by how improbable its features are among those of clean images of the predicted class.

    The features are the outputs of the last hidden layer. For each class, a Gaussian kernel density is fitted to the
    features of the clean images that the model classifies correctly. The score is minus the logarithm of the density of
    the predicted class. The kernels have the same bandwidth in all dimensions and for all classes.

    Args:
        layers: the layer; of several, the last one counts (see `hooks.choose_layers`).
        pooling: how feature maps are pooled (see `hooks.features`).
        bandwidth: the standard deviation of the kernel; or `"mnist"` (1.20), `"cifar10"` (0.26) or `"svhn"` (1.00),
            the paper's, which fit the scale of the features of its networks; None is the bandwidth under which clean
            images are likeliest, each measured by the others (our choice).
        held_out: whether an image that the density was fitted to is scored by the other images alone. The authors'
            script has no such rule: it scores an image that it learned from also by its own kernel.
        per_class: how many images of each class are learned, the first ones; None is all.

    Raises:
        InputError: the bandwidth is not above 0, or its name is unknown.
    """

    labelled = True
    least_per_class = 2

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        pooling: str = "mean",
        bandwidth: float | str | None = None,
        held_out: bool = True,
        per_class: int | None = None,
    ) -> None:
        self.layers, self.pooling, self.bandwidth = layers, pooling, bandwidth
        self.held_out, self.per_class = held_out, per_class
        if isinstance(bandwidth, str) and bandwidth not in BANDWIDTHS:
            raise InputError(f"bandwidth {bandwidth!r} is unknown; give a number, or one of: {', '.join(BANDWIDTHS)}")
        if isinstance(bandwidth, (int, float)) and not bandwidth > 0:
            raise InputError(f"bandwidth must be above 0, got {bandwidth}")

    @property
    def most_per_class(self) -> int | None:
        """Return how many clean images of each class are learned."""
        return self.per_class

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        return choose_probes(model, x, self.layers, self.pooling)[-1:]

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        (known,) = clean.features.values()
        assert clean.y is not None
        width = BANDWIDTHS[self.bandwidth] if isinstance(self.bandwidth, str) else self.bandwidth
        chosen = best_bandwidth(known, clean.y) if width is None else torch.tensor(width, dtype=torch.float64)
        return {"known": known, "classes": clean.y, "bandwidth": chosen}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        (probe,) = self.fitted().probes
        return self.improbability(inputs, probe, learned)

    def improbability(self, inputs: Evaluated, probe: Probe, learned: dict[str, Tensor]) -> Tensor:
        """Return minus the log-density of the predicted class, `[B]`, by the tensors that a fit learned."""
        features, held_out = inputs.features[probe], self.held_out
        known, classes, bandwidth = (learned[name] for name in ("known", "classes", "bandwidth"))
        return -class_log_density(features, inputs.predicted, known, classes, bandwidth, held_out=held_out)
