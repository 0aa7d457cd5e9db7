"""Train adversarial transformation networks (Wu et al., CVPR 2021, algorithm 1): one for each image, or one for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire import models
from underfire.ascent import moves
from underfire.ascent.objective import Start
from underfire.ascent.objectives import cross_entropy
from underfire.ascent.step import State, Targets
from underfire.ascent.threats import ball
from underfire.attacks.transfer.transformation.network import (
    AdversarialTransformation,
    Weights,
    first_weights,
    transformed,
)
from underfire.errors import InputError
from underfire.files import as_path
from underfire.hooks import bypass_cache, frozen
from underfire.learning import Checkpoint, Shuffled, fit
from underfire.model import as_classifier
from underfire.validate import at_least, at_least_one, check_classes, default_generator, per_sample

if TYPE_CHECKING:
    from underfire.data import Dataset

Transform = Callable[[Tensor], Tensor]
_FOOL = cross_entropy()


@dataclass(frozen=True)
class Game:
    """The two objectives that the network and the adversarial images pursue.

    Attributes:
        clean_weight: weight of the cross-entropy of the transformed clean image, the paper's alpha_1.
        strength_weight: weight of `|x' - T(x')|^2`, the paper's alpha_2.
        plain_weight: weight of the loss of the adversarial image itself in the inner loop, the paper's beta.
        inner_steps: steps of the images between two steps of the network, the paper's K_inner.
    """

    clean_weight: float = 1.0
    strength_weight: float = 10.0
    plain_weight: float = 1.0
    inner_steps: int = 10

    def __post_init__(self) -> None:
        at_least_one(inner_steps=self.inner_steps)
        weights = {"clean": self.clean_weight, "strength": self.strength_weight, "plain": self.plain_weight}
        at_least(0, **{f"{name}_weight": weight for name, weight in weights.items()})

    def fool(
        self, start: Start, transform: Transform, x_adv: Tensor, size: Tensor, memory: State
    ) -> tuple[Tensor, State]:
        """Return the images after the inner loop, which makes `-L_fool` large by Adam, and Adam's memory.

        Args:
            start: the clean images and their classes.
            transform: the network.
            x_adv: the images before.
            size: Adam's step size, one for each image `[B]`.
            memory: Adam's memory; None begins anew.
        """
        adam = moves.adam()
        memory = adam.init(x_adv) if memory is None else memory
        targets = Targets(start.y, start.goal, torch.arange(len(x_adv), device=x_adv.device))
        for _ in range(self.inner_steps):
            with torch.enable_grad():
                z = x_adv.detach().requires_grad_()
                plain, behind = _logits(start.model, z, transform(z))
                fooled, alone = (_FOOL(targets.step(start.model, z, logits)) for logits in (behind, plain))
                (slope,) = torch.autograd.grad((fooled + self.plain_weight * alone).sum(), z)
            direction, memory = adam.update(slope.nan_to_num(0.0, 0.0, 0.0), memory)
            x_adv = start.project(x_adv + per_sample(size, x_adv) * direction)
        return x_adv.detach(), memory

    def resist(self, start: Start, transform: Transform, x_adv: Tensor) -> Tensor:
        """Return `L_T` of every image, `[B]`, which the network makes small."""
        changed = transform(x_adv)
        behind, clean = _logits(start.model, changed, transform(start.x))
        loss, kept = (F.cross_entropy(logits, start.y, reduction="none") for logits in (behind, clean))
        strength = (x_adv - changed).square().flatten(1).sum(1)
        return loss + self.clean_weight * kept + self.strength_weight * strength


def _logits(model: nn.Module, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of two batches, from one pass."""
    with bypass_cache(model):
        found = model(torch.cat([one, other]))
    return found[: len(one)], found[len(one) :]


def transformations_of(
    start: Start, game: Game, *, size: Tensor, outer_steps: int, rate: float, kernels: tuple[int, int], slope: float
) -> Weights:
    """Train one network for each image, and return their weights, `[N, ...]` each.

    All networks begin with the same random weights, so that an image has the same network in any batch.

    Args:
        start: the clean images, their classes, and the projection.
        game: the objectives.
        size: Adam's step size in the images, `[N]`.
        outer_steps: steps of the network, the paper's K_outer.
        rate: Adam's step size in the weights of the network.
        kernels: sides of the kernels of the two convolutions.
        slope: slope of the leaky ReLU below zero.
    """
    adam, memory = moves.adam(), None
    one = first_weights(start.x.shape[1], kernels, 0.01, start.x, start.generator)
    weights = tuple(weight.repeat(len(start.x), *[1] * (weight.dim() - 1)) for weight in one)
    states = [adam.init(weight) for weight in weights]
    with torch.no_grad(), bypass_cache(start.model):
        check_classes(start.model(start.x), start.y, start.goal)
    x_adv = start.x
    for _ in range(outer_steps):
        # inner maximisation: images that fool the model, also behind the network
        x_adv, memory = game.fool(start, partial(transformed, weights=weights, slope=slope), x_adv, size, memory)
        # outer minimisation: one step of the networks
        with torch.enable_grad():
            free = tuple(weight.detach().requires_grad_() for weight in weights)
            loss = game.resist(start, partial(transformed, weights=free, slope=slope), x_adv)
            slopes = torch.autograd.grad(loss.sum(), free)
        moved = []
        for i, (weight, g) in enumerate(zip(weights, slopes, strict=True)):
            direction, states[i] = adam.update(g.nan_to_num(0.0, 0.0, 0.0), states[i])
            moved.append(weight - rate * direction)
        weights = tuple(moved)
    return weights


def train_transformation(
    model: nn.Module,
    data: Dataset,
    *,
    eps: float = 16 / 255,
    epochs: float = 1.0,
    batch_size: int = 32,
    rate: float = 1e-3,
    inner_steps: int = 10,
    clean_weight: float = 1.0,
    strength_weight: float = 10.0,
    plain_weight: float = 1.0,
    kernels: tuple[int, int] = (3, 15),
    slope: float = 0.01,
    generator: Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> AdversarialTransformation:
    """Return one adversarial transformation network for all images, trained on a data set by Adam.

    Each step draws a batch, makes its images adversarial in the inner loop, from the clean ones, and takes one step of
    the network. The learning rate, the number of steps and the first weights are ours; the paper does not give them in
    the text that we have.

    Args:
        model: the classifier; it is not changed.
        data: images with labels.
        eps: largest change of the adversarial images in L-infinity.
        epochs: passes over the data.
        batch_size: images in a step.
        rate: Adam's step size in the weights of the network.
        inner_steps: steps of the images for each step of the network, the paper's K_inner; they have size
            `eps / inner_steps`, by Adam.
        clean_weight: weight of the cross-entropy of the transformed clean image, the paper's alpha_1.
        strength_weight: weight of `|x' - T(x')|^2`, the paper's alpha_2.
        plain_weight: weight of the adversarial image's own loss in the inner loop, the paper's beta.
        kernels: sides of the kernels of the two convolutions, odd.
        slope: slope of the leaky ReLU below zero.
        generator: source of all random numbers.
        progress: called with the number of steps that are done, and of all steps.
        checkpoint: a file for the state of the training; if it exists, training continues from it.

    Raises:
        InputError: a number is out of its range, or the checkpoint is of another training. ModelError: the loss is NaN.
        Unsupported: the model does not take images.
    """
    model = as_classifier(model)
    model.domain.require_images("atta")
    if not (epochs > 0 and rate > 0):
        raise InputError(f"epochs and rate must be above 0, got {epochs:g} and {rate:g}")
    game = Game(clean_weight, strength_weight, plain_weight, inner_steps)
    generator = default_generator(generator)
    seed, device = generator.initial_seed(), model.mean.device
    like = data[:1].x
    network = AdversarialTransformation(like.shape[1], kernels=kernels, slope=slope, generator=generator, like=like)
    network = network.to(device)
    threat = ball("linf", eps)

    def loss(batch: tuple[Tensor, Tensor], _: Generator) -> Tensor:
        x, y = batch
        start = Start(model, x, y, None, threat.projection(x), None)
        size = torch.full((len(x),), eps / inner_steps, dtype=x.dtype, device=x.device)
        return game.resist(start, network, game.fool(start, network, x, size, None)[0])

    batches = Shuffled(data, batch_size, device=device)
    options = (eps, batch_size, rate, game, kernels, slope, seed)
    facts = {"options": repr(options), "data": data.fingerprint(), "model": models.fingerprint(model)}
    with frozen(model):
        fit(
            network,
            torch.optim.Adam(network.parameters(), rate),
            batches,
            loss,
            steps=max(1, round(epochs * batches.per_epoch)),
            generator=generator,
            checkpoint=None if checkpoint is None else Checkpoint(as_path(checkpoint), facts),
            progress=progress,
        )
    network.trained = True
    return network.requires_grad_(False)
