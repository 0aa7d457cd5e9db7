"""Feature squeezing (Xu, Evans and Qi, NDSS 2018): a prediction that a squeezed image changes is suspicious."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.catalog import card
from underfire.detectors.detector import Detector, in_chunks
from underfire.detectors.evaluated import Evaluated
from underfire.hooks import frozen
from underfire.model import Classifier, as_classifier
from underfire.transforms.squeezing import squeezers as named


@card(
    "detector",
    name="feature_squeezing",
    paper="Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018",
    differentiable=True,
)
class FeatureSqueezing(Detector):
    """Score an image by how far its prediction moves when the image is squeezed.

    The score is the largest L1 distance, over all squeezers, of the probabilities of the image from those of the
    squeezed image; it lies in `[0, 2]`. Nothing is learned from clean images but their scores. Bit depth has the
    gradient of the identity (BPDA), so that an attack can lower the score.

    Args:
        squeezers: names such as `bit_depth_5`, `median_2` and `non_local_means_13_3_2` (see `transforms.squeezing`);
            or `mnist`, `cifar10` or `imagenet`, the best joint detector of the paper for that data.

    Raises:
        InputError: there is no such squeezer.
    """

    def __init__(self, *, squeezers: str | tuple[str, ...] = "imagenet") -> None:
        self.squeezers = squeezers
        self._named = named(squeezers)

    def distances(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the L1 distance of the probabilities under each squeezer, `[B, S]`, in the order of the squeezers.

        The score of a detector with some of them is the largest of their columns.
        """
        with frozen(model):
            return self._distances(as_classifier(model), x, model(x))

    def _distances(self, model: Classifier, x: Tensor, logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        squeezed = torch.stack([model(squeeze(x)).softmax(1) for squeeze in self._named.values()], 1)
        return (p[:, None] - squeezed).abs().sum(2)

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        parts = zip(in_chunks(clean.x), in_chunks(clean.logits), strict=True)
        return {"clean_distances": torch.cat([self._distances(model, x, logits) for x, logits in parts])}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return self._distances(model, inputs.x, inputs.logits).amax(1)
