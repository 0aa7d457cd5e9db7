"""Mahalanobis distance (Lee et al., NeurIPS 2018): features far from the mean of every class are suspicious."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.detectors.detector import Detector, in_chunks
from underfire.detectors.distances import squared_distances
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.regression import fit_regression, log_odds, noisy_like
from underfire.hooks import Probe, choose_probes, features
from underfire.model import Classifier
from underfire.validate import at_least, check_choice


@card(
    "detector",
    name="mahalanobis",
    paper="Lee, Lee, Lee and Shin, A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
    "Adversarial Attacks, NeurIPS 2018",
    differentiable=True,
)
class Mahalanobis(Detector):
    """Score an image by the Mahalanobis distance of its features from the nearest class mean, in several layers.

    For each layer, the mean of each class and one covariance that all classes share are estimated from the clean
    images; the features are means over space. The score of a layer is the squared distance from the nearest mean. The
    pseudoinverse of the covariance is used, so that channels that never change do not count.

    Args:
        layers: names or patterns of the layers (see `hooks.choose_layers`).
        combine: how the scores of the layers become one: `"sum"`, of the scores standardised by the clean images (our
            choice, which learns from no attack); `"last"`, that of the last layer alone; or `"logistic"`, the log-odds
            of a logistic regression that also learns from attacked images, as in the paper.
        input_noise: the size of the step by which each image is changed before a layer scores it, so that this layer's
            distance becomes smaller; in pixel values, while the paper's .0005 to .01 are in normalised ones. The
            gradient of the score leaves out that of the step.
        matched_noise: with `"logistic"`, whether noisy copies of the clean images, with noise as large as the attack,
            count as not attacked too.

    Raises:
        Unsupported: `combine` is unknown. InputError: the step is negative.
    """

    labelled = True
    least_per_class = 2

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        combine: str = "sum",
        input_noise: float = 0.0,
        matched_noise: bool = True,
    ) -> None:
        self.layers, self.combine, self.input_noise, self.matched_noise = layers, combine, input_noise, matched_noise
        check_choice(("sum", "last", "logistic"), combine=combine)
        at_least(0, input_noise=input_noise)

    @property
    def supervised(self) -> bool:
        """Return whether a fit needs attacked inputs."""
        return self.combine == "logistic"

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        probes = choose_probes(model, x, self.layers)
        return probes[-1:] if self.combine == "last" else probes

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        assert clean.y is not None
        probes, learned = tuple(clean.features), dict[str, Tensor]()
        for number, values in enumerate(clean.features.values()):
            fitted = class_gaussians(values, clean.y, clean.logits.shape[1])
            learned |= {f"{number}.{name}": tensor for name, tensor in fitted.items()}
        if self.combine == "last":
            return learned
        scores = self._in_chunks(model, clean.x, probes, learned)
        if self.combine == "sum":
            scale = scores.std(0)
            return learned | {"mean": scores.mean(0), "scale": torch.where(scale > 0, scale, 1.0)}
        assert attacked is not None
        if self.matched_noise:
            noisy = noisy_like(clean, attacked)
            scores = torch.cat([scores, self._in_chunks(model, noisy, probes, learned)])
        return learned | fit_regression(scores, self._in_chunks(model, attacked.x, probes, learned))

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        scores = self._layer_scores(model, inputs.x, self.fitted().probes, learned, inputs)
        if self.combine == "last":
            return scores[:, -1]
        if self.combine == "sum":
            return ((scores - learned["mean"]) / learned["scale"]).sum(1)
        return log_odds(scores, learned)

    def _in_chunks(self, model: Classifier, x: Tensor, probes: tuple[Probe, ...], learned: dict[str, Tensor]) -> Tensor:
        return torch.cat([self._layer_scores(model, part, probes, learned) for part in in_chunks(x)])

    def _layer_scores(
        self,
        model: Classifier,
        x: Tensor,
        probes: tuple[Probe, ...],
        learned: dict[str, Tensor],
        inputs: Evaluated | None = None,
    ) -> Tensor:
        """Return the score of each layer, `[B, L]`; `inputs` are known features of the images."""
        found = []
        if not self.input_noise:
            known = inputs.features if inputs is not None else features(model, x, probes)[1]
            return torch.stack([distance(known[p], learned, n) for n, p in enumerate(probes)], 1)
        for number, probe in enumerate(probes):
            # move the images towards the nearest mean of this layer
            with torch.enable_grad():
                start = x.detach().clone().requires_grad_()
                near = distance(features(model, start, (probe,))[1][probe], learned, number)
                (slope,) = torch.autograd.grad(near.sum(), start)
            moved = (x - self.input_noise * slope.sign()).clamp(0, 1)
            found.append(distance(features(model, moved, (probe,))[1][probe], learned, number))
        return torch.stack(found, 1)


def class_gaussians(values: Tensor, y: Tensor, classes: int) -> dict[str, Tensor]:
    """Return the Gaussians of the classes, with one covariance, fitted to features `[n, D]`.

    Returns:
        The `centre` of the features `[D]`; the matrix `whitening` `[D, R]`, by which the covariance within the classes
        becomes the identity, of its rank `R`; and the `means` of the classes in white coordinates `[K, R]`.
    """
    values = values.double()
    centre = values.mean(0)
    one_hot = torch.nn.functional.one_hot(y, classes).to(values)
    means = one_hot.T @ (values - centre) / one_hot.sum(0)[:, None]
    within = values - centre - means[y]
    eigenvalues, vectors = torch.linalg.eigh(within.T @ within / len(values))
    kept = eigenvalues > eigenvalues.amax() * len(eigenvalues) * torch.finfo(values.dtype).eps
    whitening = vectors[:, kept] / eigenvalues[kept].sqrt()
    return {"centre": centre, "whitening": whitening, "means": means @ whitening}


def distance(values: Tensor, learned: dict[str, Tensor], number: int) -> Tensor:
    """Return the squared Mahalanobis distance of features `[B, D]` from the nearest mean of a class, `[B]`."""
    centre, whitening, means = (learned[f"{number}.{name}"].double() for name in ("centre", "whitening", "means"))
    white = (values.double() - centre) @ whitening
    return squared_distances(white, means).amin(1).to(values.dtype)
