"""Real-time saliency, RTS (Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017)."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.scores import class_score
from underfire.catalog import card, find
from underfire.errors import InputError, NotFitted
from underfire.files import as_path
from underfire.hooks import activations, frozen, layout_of
from underfire.interpreters.rts import distillation
from underfire.interpreters.rts import files as rts_files
from underfire.interpreters.rts.loss import Terms, loss
from underfire.interpreters.rts.network import WIDTH
from underfire.interpreters.rts.training import Plan, check, train
from underfire.learning import drawn_seed, model_fingerprint
from underfire.model import as_classifier
from underfire.validate import require_finite

if TYPE_CHECKING:
    from underfire.data import Dataset


@card(
    "interpreter",
    name="rts",
    paper="Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017",
    family="model-guided",
    differentiable=True,
    second_order=False,
)
class RTS:
    """Explain by a second network that is trained once and then returns the map of an image in one pass.

    The encoder is the classifier under test, frozen. A class selector and a U-Net decoder turn its feature maps into
    the mask. Weights for `zoo:cluttered_digits` and `zoo:resnet56_cifar10` come with the package; on CIFAR-10, the map
    separates the class no better than that of Grad-CAM.

    Args:
        weights: a file that `save` or `underfire train rts` wrote. None uses the network that `fit` trained, or else
            the weights that come with the package for the model.
        threshold: the logit at which the selector halves the features of a place; 6 in the authors' demonstration and
            in ADV², 0 in training.

    Raises:
        InputError: the threshold is not finite.
    """

    def __init__(self, *, weights: str | None = None, threshold: float = 0.0) -> None:
        if not math.isfinite(threshold):
            raise InputError(f"threshold must be a number of logits, such as 0 or 6, got {threshold:g}")
        self.weights, self.threshold = weights, threshold
        self._trained: rts_files.Trained | None = None
        self._origin = "the fitted network"
        self._embedded: dict[str, rts_files.Trained] = {}

    def fit(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        selector_steps: int = 8500,
        steps: int = 3000,
        selector_batch: int = 128,
        batch_size: int = 64,
        width: int = WIDTH,
        smooth: float = Terms.smooth,
        area: float = Terms.area,
        area_power: float = Terms.area_power,
        destroy: float = Terms.destroy,
        destroy_power: float = Terms.destroy_power,
        noise: float = Terms.noise,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train selector and decoder for `model`, with Adam (rate 0.001, weight decay 0.0001).

        Args:
            model: the classifier; it is not changed.
            data: images with labels.
            selector_steps: steps of the first phase, in which the selector learns which classes are in an image.
            steps: steps of the second phase, in which the decoder learns the objective.
            selector_batch: images in a step of the first phase.
            batch_size: images in a step of the second phase.
            width: channels of the decoder's finest level.
            smooth: λ1, weight of the total variation of the mask (for all λ, see `loss.Terms`).
            area: λ2, weight of the mean of the mask.
            area_power: power of the mask's values in that mean.
            destroy: λ3, weight of the probability of the class without the evidence.
            destroy_power: λ4, power of that probability.
            noise: standard deviation of the noise on images under a mask.
            generator: the source of all random numbers.
            progress: called with the number of passes that are done, and of all passes.
            checkpoint: a file for the state of the training; if it exists, training continues from it.

        Raises:
            InputError: a number is out of range, or the checkpoint is of another training. DataError: labels do not fit
                the model. Unsupported: the model has no feature maps. ModelError: the model returns NaN.
        """
        seed = drawn_seed(generator)
        terms = Terms(smooth, area, area_power, destroy, destroy_power, noise)
        plan = Plan(selector_steps, selector_batch, steps, batch_size, width, terms, seed)
        check(plan)
        self._origin = "the fitted network"
        self._trained = train(model, data, plan, progress, None if checkpoint is None else as_path(checkpoint))
        return self

    def distil(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        steps: int = 300,
        batch_size: int = 32,
        distance: float = 100.0,
        rate: float = 3e-4,
        eps: float = 0.031,
        attack_steps: int = 20,
        warm_steps: int = 10,
        weight: float = 100.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on with ADV² in the loop, so that adversarial images get other maps (AID; see `distillation`).

        Training begins with the weights that explain the model now, and has the objective that they were trained with,
        which their file holds. The paper states neither the number of steps, nor their length, nor the settings of the
        attack; these are ours.

        Args:
            model: the classifier; it is not changed.
            data: images with labels.
            steps: number of pairs of a step on the objective of RTS and one on that of AID.
            batch_size: images in a step.
            distance: weight of the objective of AID. Maps are sparse, so that the distance of two of them is some
                hundred times smaller than the objective of RTS.
            rate: learning rate of Adam.
            eps: largest perturbation of ADV², in L-infinity.
            attack_steps: number of steps of ADV².
            warm_steps: number of steps of its warm start.
            weight: weight of its map loss.
            generator: the source of all random numbers.
            progress: called with the number of steps that are done, and of all steps.
            checkpoint: a file for the state of the training; if it exists, training continues from it.

        Raises:
            NotFitted: there are no weights for the model. InputError: a number is out of range, or the checkpoint is of
                another training. DataError: labels do not fit the model.
        """
        model = as_classifier(model)
        seed = drawn_seed(generator)
        plan = distillation.Plan(steps, batch_size, distance, rate, eps, attack_steps, warm_steps, weight, seed)
        self._trained = copy.deepcopy(self._for(model))
        self._origin = "the distilled network"
        attack = find("attack", "adv2").with_options(
            interpreter=self, eps=eps, steps=attack_steps, warm_steps=warm_steps, weight=weight
        )
        path = None if checkpoint is None else as_path(checkpoint)
        with torch.inference_mode(False), torch.enable_grad():
            distillation.distil(model, data, self._trained, plan, self._trained.terms, attack, progress, path)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trained network as a safetensors file, with the classifier's fingerprint in the metadata.

        Raises:
            NotFitted: `fit` was not called.
        """
        if self._trained is None:
            raise NotFitted("rts has nothing to save; call fit(model, data) first")
        rts_files.save(self._trained, as_path(path))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the mask of the evidence for class `y`, by one pass through the classifier and the decoder.

        Returns:
            The map, `[B, 1, h, w]`, in `[0, 1]`, at a quarter of the image's size if the classifier has feature maps of
            that size.

        Raises:
            NotFitted: there are no weights for the model. ModelError: the weights are of another model, or the model
                returns NaN.
        """
        trained = self._for(model)
        m: Tensor = trained.network(self._features(trained, model, x, y), y, self.threshold)
        require_finite(m, "the mask of the model's features")
        return m.to(x.dtype)

    def encoder_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return how little the encoder finds class `y` in each image: cross-entropy of the selector's logit, `[B]`.

        ADV² adds the difference between the encoder's output and that for the goal to its loss. In its code this is the
        cross-entropy of the encoder's logits. Here the encoder is the classifier under attack, whose cross-entropy is
        the prediction loss already, so the class selector judges the encoder's features instead.

        Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 3.4.
        """
        trained = self._for(model)
        coarsest = self._features(trained, model, x, y)[0]
        return F.softplus(-trained.network.selector.exists(coarsest.mean((2, 3)), y)).to(x.dtype)

    def _features(self, trained: rts_files.Trained, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the feature maps of the classifier that the masking model reads, the coarsest first."""
        with frozen(model):
            logits, outputs = activations(model, x, trained.layers)
            class_score(logits, y)  # check the classes
            wide = torch.promote_types(torch.float32, x.dtype)  # an earlier call may have set another dtype
            trained.network.to(x.device, wide)
            return [layout_of(model, x, name).maps(outputs[name]).to(wide) for name in trained.layers]

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, terms: Terms | None = None, generator: torch.Generator
    ) -> Tensor:
        """Return the training objective of the masks of images, `[B]`; lower is better.

        Args:
            terms: the weights of the objective; None is those that the masking model was trained with.
            generator: draws noise and backgrounds, on the CPU.
        """
        m = self(model, x, y)
        terms = terms or self._for(model).terms
        with frozen(model):
            return loss(model, x, y, m, torch.ones_like(y, dtype=torch.bool), terms, generator)

    def _for(self, model: nn.Module) -> rts_files.Trained:
        """Return the masking model for this classifier: from the file, from `fit`, or from the package."""
        if self.weights is not None and self._trained is None:
            self._trained, self._origin = rts_files.load(as_path(self.weights)), f"the file {self.weights}"
        if self._trained is not None:
            rts_files.check_classifier(self._trained, model, self._origin)
            return self._trained
        mark = model_fingerprint(model)
        if mark not in self._embedded:
            found = rts_files.embedded(mark)
            if found is None:
                raise NotFitted(
                    "rts has no weights for this model; call fit(model, data) first, or run "
                    "`underfire train rts --model ... --data ... --out FILE` and pass weights=FILE"
                )
            self._embedded[mark] = found
        return self._embedded[mark]
