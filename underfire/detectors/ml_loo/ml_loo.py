"""ML-LOO (Yang et al., AAAI 2020): dispersed leave-one-out attributions of neurons in several layers are suspicious."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.attribution.chunks import MEMORY
from underfire.attribution.removal import output_drops
from underfire.attribution.scores import class_score
from underfire.attribution.variants import OUTPUTS
from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.ml_loo.dispersion import DISPERSIONS, dispersion
from underfire.detectors.regression import fit_regression, log_odds
from underfire.errors import InputError, Unsupported, nearest, shown
from underfire.hooks import Probe, choose_probes
from underfire.hooks.choosing import LOGITS
from underfire.hooks.means import layer_means
from underfire.model import Classifier
from underfire.validate import check_choice


@card(
    "detector",
    name="ml_loo",
    paper="Yang, Chen, Hsieh, Wang and Jordan, ML-LOO: Detecting Adversarial Examples with Feature Attribution, "
    "AAAI 2020",
    supervised=True,
)
class MLLOO(Detector):
    """Score an image by how dispersed the leave-one-out attributions of neurons in several layers are.

    Each value of each pixel and channel is replaced by the fill, one at a time. The attribution of that value for a
    neuron is how much the neuron's output drops; an image of 3 x 32 x 32 values costs 3,073 passes. The neurons are the
    spatial means of the channels of hidden layers, the output for each class, and the output for the predicted class.
    The features of an image are a statistic of dispersion over its attributions for each neuron. The score is the
    log-odds of a logistic regression on standardised features, fitted to correctly classified clean images and
    successfully attacked ones. The statistics have no useful gradient through so many passes, so the score has none.

    Args:
        layers: names or patterns of the hidden layers (see `hooks.choose_layers`). The paper reads the blocks of a
            residual network.
        dispersion: one or several of `"iqr"`, the statistic of the paper's detector, `"std"`, `"variance"`,
            `"mean_absolute_deviation"`, `"median_absolute_deviation"`, `"skewness"` and `"kurtosis"`, which the
            authors' code computes too.
        output: `"probability"`, as in the paper, or `"logit"`, which does not saturate.
        fill: what replaces a value; the paper takes black.
        reuse: compute only the activations that a pixel can have changed, which gives the same numbers up to rounding.
        memory: MiB that one layer may read and write for a chunk, and that the attributions of a group of images may
            take.

    Raises:
        Unsupported: a statistic or the output is unknown. InputError: no statistic is named.
    """

    labelled = True
    least = 2

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        dispersion: str | tuple[str, ...] = "iqr",
        output: str = "probability",
        fill: str | float = "black",
        reuse: bool = True,
        chunk: int | None = None,
        memory: float = MEMORY,
    ) -> None:
        self.layers, self.dispersion, self.output, self.fill = layers, dispersion, output, fill
        self.reuse, self.chunk, self.memory = reuse, chunk, memory
        self._names = (dispersion,) if isinstance(dispersion, str) else tuple(dispersion)
        check_choice(OUTPUTS, output=output)
        if not self._names:
            raise InputError(f"dispersion must name a statistic, such as 'iqr', got {shown(dispersion)}")
        for name in self._names:
            if name not in DISPERSIONS:
                raise Unsupported(f"dispersion {shown(name)} is unknown; {nearest(str(name), DISPERSIONS)}")

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        return choose_probes(model, x, self.layers)

    def attributions(self, model: Classifier, x: Tensor, layers: tuple[str, ...]) -> Tensor:
        """Return the attributions of all `P` values of each image for all `N` neurons, `[B, P, N]`.

        The values are in the order of `x.flatten(1)`. The neurons are those of the layers in their order, then the
        output for each class and for the predicted class.
        """
        with torch.no_grad():
            x, y = x.detach(), model(x).argmax(1)
            channel, i, j = (
                places.flatten() for places in torch.meshgrid(*map(torch.arange, x.shape[1:]), indexing="ij")
            )
            hidden = [name for name in layers if name != LOGITS]
            with layer_means(model, x, hidden) as means:

                def read(logits: Tensor, y: Tensor) -> Tensor:
                    outputs = logits.softmax(1) if self.output == "probability" else logits
                    return torch.cat([*means.taken(), outputs, class_score(outputs, y)[:, None]], 1)

                return output_drops(
                    model,
                    x,
                    y,
                    (i, i + 1),
                    (j, j + 1),
                    read=read,
                    channels=channel,
                    fill=self.fill,
                    reuse=self.reuse,
                    chunk=self.chunk,
                    memory=self.memory,
                )

    def dispersions(self, model: Classifier, x: Tensor, layers: tuple[str, ...]) -> Tensor:
        """Return the statistics of the attributions of each neuron, `[B, N * S]`."""
        values = self.attributions(model, x, layers)
        return dispersion(values.transpose(1, 2).contiguous(), self._names).flatten(1)

    def _features(self, model: Classifier, inputs: Evaluated, probes: tuple[Probe, ...]) -> Tensor:
        """Return the features that the regression reads; the attributions of one group are in memory at once."""
        neurons = sum(inputs.features[probe].shape[1] for probe in probes) + inputs.logits.shape[1] + 1
        # the attributions, what joins them, and what sorts them
        needed = 4 * inputs.x[0].numel() * neurons * inputs.x.element_size()
        group = max(1, int(self.memory * 2**20 // needed))
        layers = tuple(probe.layer for probe in probes)
        return torch.cat([self.dispersions(model, part, layers) for part in inputs.x.split(group)])

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        assert attacked is not None
        probes = tuple(clean.features)
        return fit_regression(self._features(model, clean, probes), self._features(model, attacked, probes))

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return log_odds(self._features(model, inputs, self.fitted().probes), learned)
