"""Local intrinsic dimensionality (Ma et al., ICLR 2018): features with other numbers of dimensions nearby."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.distances import squared_distances
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.regression import counterparts, fit_regression, log_odds, noisy_like
from underfire.hooks import Probe, all_features, choose_probes
from underfire.learning import drawn_seed
from underfire.model import Classifier
from underfire.validate import at_least

_STEEPEST = 1e-6  # smallest mean log-ratio of distances, which bounds the estimate where all distances are equal


@card(
    "detector",
    name="lid",
    paper="Ma, Li, Wang, Erfani, Wijewickrema, Schoenebeck, Song, Houle and Bailey, Characterizing Adversarial "
    "Subspaces Using Local Intrinsic Dimensionality, ICLR 2018",
    supervised=True,
    differentiable=True,
)
class LID(Detector):
    """Score an image by a logistic regression on the local intrinsic dimensionality of its features in several layers.

    The dimensionality of a feature is estimated by maximum likelihood from its distances to its `k` nearest among the
    features of `samples` clean images. The score is the log-odds that the image is attacked. In the paper, an image is
    compared with the clean images of its own minibatch; here with one minibatch that the fit draws, so that a score
    does not depend on other images. An image is not compared with itself, nor a noisy or attacked copy with its
    original.

    Args:
        layers: names or patterns of the layers (see `hooks.choose_layers`); the paper reads all.
        pooling: how feature maps are pooled (see `hooks.features`); `"none"` is the paper's, and takes much memory.
        k: the number of nearest neighbours; the paper takes 20.
        samples: the number of clean images that others are compared with; the paper takes 100.
        matched_noise: whether noisy copies of the clean images, with noise as large as the attack, count as not
            attacked too, as in the paper.

    Raises:
        InputError: `k` is below 2, or `samples` is not above `k`.
    """

    labelled = True

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        pooling: str = "mean",
        k: int = 20,
        samples: int = 100,
        matched_noise: bool = True,
        generator: Generator | None = None,
    ) -> None:
        self.layers, self.pooling, self.k, self.samples = layers, pooling, k, samples
        self.matched_noise, self.generator = matched_noise, generator
        at_least(2, k=k)
        at_least(k + 2, samples=samples)
        self.least = samples

    @property
    def options(self) -> dict[str, object]:
        """Return the options; a file needs no generator, since the fit has drawn from it."""
        names = ("layers", "pooling", "k", "samples", "matched_noise")
        return {name: getattr(self, name) for name in names}

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        return choose_probes(model, x, self.layers, self.pooling)

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        assert attacked is not None
        # draw the minibatch
        generator = torch.Generator().manual_seed(drawn_seed(self.generator))
        drawn = torch.randperm(len(clean), generator=generator)[: self.samples].to(clean.x.device)
        column = torch.full((len(clean),), -1, device=drawn.device)
        column[drawn] = torch.arange(self.samples, device=drawn.device)
        probes = tuple(clean.features)
        learned = {f"{number}.known": clean.features[probe][drawn] for number, probe in enumerate(probes)}
        # the estimates of clean, noisy and attacked images, each without its own original
        usual = [self._dimensions(clean.features, probes, learned, column)]
        if self.matched_noise:
            _, noisy = all_features(model, noisy_like(clean, attacked), probes)
            usual.append(self._dimensions(noisy, probes, learned, column))
        row, counterpart = counterparts(clean, attacked)
        own = torch.full((len(attacked),), -1, device=drawn.device)
        own[row] = column[counterpart]
        unusual = self._dimensions(attacked.features, probes, learned, own)
        return learned | fit_regression(torch.cat(usual), unusual)

    def _dimensions(
        self,
        found: Mapping[Probe, Tensor],
        probes: tuple[Probe, ...],
        learned: dict[str, Tensor],
        own: Tensor | None = None,
    ) -> Tensor:
        """Return the estimates of each layer, `[B, L]`; `own` is the known image that each is not compared with."""
        layers = []
        for number, probe in enumerate(probes):
            values = found[probe]
            distances = squared_distances(values, learned[f"{number}.known"])
            if own is not None:
                column = torch.arange(distances.shape[1], device=own.device)
                distances = distances.masked_fill(own[:, None] == column, torch.inf)
            layers.append(dimensionality(distances, self.k).to(values.dtype))
        return torch.stack(layers, 1)

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return log_odds(self._dimensions(inputs.features, self.fitted().probes, learned), learned)


def dimensionality(squared: Tensor, k: int) -> Tensor:
    """Return the maximum-likelihood estimate of the local intrinsic dimensionality, `[B]`.

    With the distances `r_1 <= ... <= r_k` of the nearest neighbours, it is `-1 / mean_i(log(r_i / r_k))`.

    Args:
        squared: squared distances from other features, `[B, n]`; infinite ones do not count.
        k: the number of nearest neighbours, at most the number of finite distances.
    """
    nearest = squared.topk(k, dim=1, largest=False).values.clamp(min=torch.finfo(squared.dtype).tiny)
    ratios = 0.5 * (nearest.log() - nearest[:, -1:].log())
    return -1 / ratios.mean(1).clamp(max=-_STEEPEST)
