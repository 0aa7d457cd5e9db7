"""Real-time saliency (Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017), or RTS."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from underfire.attribution.scores import class_score, default_generator
from underfire.catalog import card
from underfire.errors import InputError, ModelError, NotFitted
from underfire.hooks import activations, frozen
from underfire.interpreters.rts import files as rts_files
from underfire.interpreters.rts.loss import Terms, loss
from underfire.interpreters.rts.network import WIDTH
from underfire.interpreters.rts.training import Plan, check, train

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
    """A network, trained once, that says in one pass which part of an image makes the classifier see a class.

    The encoder is the classifier under test itself, frozen; a class selector and a U-Net decoder on its feature maps
    give the mask. For `zoo:cluttered_digits` and `zoo:resnet56_cifar10`, weights come with the package.

    Args:
        weights: a file that `save` or `underfire train rts` wrote; None takes what was fitted, else the weights that
            come with the package for the model.
        threshold: how sure the selector must be at a place, in logits; the authors' demonstration and ADV² have 6,
            training has 0.

    Raises:
        InputError: the threshold is no number.
    """

    def __init__(self, *, weights: str | None = None, threshold: float = 0.0) -> None:
        if not math.isfinite(threshold):
            raise InputError(f"threshold must be a number of logits, such as 0 or 6, got {threshold:g}")
        self.weights, self.threshold = weights, threshold
        self._trained: rts_files.Trained | None = None
        self._terms = Terms()
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
        """Train selector and decoder for `model`; by Adam with rate 0.001 and decay 0.0001.

        Args:
            model: the classifier, which stays as it is.
            data: images with labels.
            selector_steps: of the first phase, in which the selector learns which classes are in an image.
            steps: of the second phase, in which the decoder learns the objective.
            selector_batch: images in a step of the first phase.
            batch_size: images in a step of the second phase.
            width: channels of the decoder's finest step.
            smooth: λ1, weight of the total variation of the mask (see `rts_loss.Terms`).
            area: λ2, weight of its mean.
            area_power: power of its entries in that mean.
            destroy: λ3, weight of the class's probability without the evidence.
            destroy_power: λ4, its power.
            noise: standard deviation of what is added to the image behind a mask, as a share of its range.
            generator: source of all chance; without one, the same every time.
            progress: called with the number of passes done, and of all.
            checkpoint: a file to keep the state of training in; if it is there, training goes on from it.

        Raises:
            InputError: a number is out of its range, or the checkpoint is of another training. DataError: labels do not
                fit the model. Unsupported: the model has no feature maps. ModelError: it gives NaN.
        """
        chance = default_generator(generator, torch.device("cpu"))
        seed = int(torch.randint(2**40, (1,), generator=chance, device=chance.device))
        self._terms = terms = Terms(smooth, area, area_power, destroy, destroy_power, noise)
        plan = Plan(selector_steps, selector_batch, steps, batch_size, width, terms, seed)
        check(plan)
        self._trained = train(model, data, plan, progress, None if checkpoint is None else Path(checkpoint))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was fitted as safetensors, with the classifier's fingerprint in its metadata.

        Raises:
            NotFitted: nothing was.
        """
        if self._trained is None:
            raise NotFitted("rts has nothing to save; call fit(model, data) first")
        rts_files.save(self._trained, Path(path))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The mask of the evidence for class `y`: one pass through the classifier and the decoder.

        Args:
            model: the classifier that the mask network was trained for.
            x: images `[B, C, H, W]` in `[0, 1]`.
            y: the class to explain, int64 `[B]`.

        Returns:
            The map, `[B, 1, h, w]`, in `[0, 1]`; a quarter of the image's size where the classifier has such features.

        Raises:
            NotFitted: there are no weights for the model. ModelError: those given are of another one; or it gives NaN.
        """
        trained = self._for(model)
        with frozen(model):
            logits, outputs = activations(model, x, trained.layers)
            class_score(logits, y)  # raises where y does not fit
            network = trained.network
            wide = torch.promote_types(torch.float32, x.dtype)  # not what an earlier call left it in
            network.to(x.device, wide)
            m: Tensor = network([outputs[name].to(wide) for name in trained.layers], y, self.threshold)
        if not bool((seen := torch.isfinite(m).flatten(1).all(1)).all()):
            raise ModelError(f"the model's features are NaN or infinite for {int((~seen).sum())} of {len(x)} images")
        return m.to(x.dtype)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, terms: Terms | None = None, generator: torch.Generator
    ) -> Tensor:
        """The training objective of the masks that it gives, `[B]`: lower is better; for images not trained on.

        Args:
            model: the classifier.
            x: images.
            y: their classes, int64 `[B]`.
            terms: the weights of the objective; None is those of the last `fit`, or else its defaults.
            generator: draws the backgrounds; on the CPU.
        """
        m = self(model, x, y)
        with frozen(model):
            return loss(model, x, y, m, torch.ones_like(y, dtype=torch.bool), terms or self._terms, generator)

    def _for(self, model: nn.Module) -> rts_files.Trained:
        """What was learned for this model."""
        if self.weights is not None and self._trained is None:
            self._trained = rts_files.load(Path(self.weights))
        if self._trained is not None:
            rts_files.expect(self._trained, model, f"the file {self.weights}" if self.weights else "what was fitted")
            return self._trained
        mark = rts_files.fingerprint(model)
        if mark not in self._embedded:
            found = rts_files.embedded(mark)
            if found is None:
                raise NotFitted(
                    "rts has no weights for this model; call fit(model, data) first, or run "
                    "`underfire train rts --model ... --data ... --out FILE` and pass weights=FILE"
                )
            self._embedded[mark] = found
        return self._embedded[mark]
