"""Adversarial interpretation distillation, AID: train RTS so that adversarial images do not get the benign map.

Steps that minimise the objective of RTS alternate with steps that minimise `-|g(x) - g(A(x))|₁`, where `A` is ADV² on
the interpreter `g` of that moment. The second objective is minimised where the maps of benign and of adversarial images
differ *most*: the interpreter then shows that the classifier behaves differently, and the L1 distance rises.

Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, sections 6.2 and A2, equation 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.interpreters.rts import files as rts_files
from underfire.interpreters.rts.loss import Terms
from underfire.interpreters.rts.training import DECAY, checkpoint_of, features_of, objective
from underfire.learning import Drawn, fit
from underfire.validate import at_least, at_least_one

if TYPE_CHECKING:
    from underfire.data import Dataset

Attack = Callable[..., Tensor]
"""`(model, x, y, *, goal, generator) -> x'`, an attack on the classifier and on the interpreter that is trained."""


@dataclass(frozen=True)
class Plan:
    """The settings of the training; see `RTS.distil`."""

    steps: int
    batch_size: int
    distance: float
    rate: float
    eps: float
    attack_steps: int
    warm_steps: int
    weight: float
    seed: int

    def __post_init__(self) -> None:
        at_least(0, steps=self.steps, distance=self.distance, rate=self.rate, warm_steps=self.warm_steps)
        at_least_one(attack_steps=self.attack_steps)
        if self.batch_size < 2:
            raise InputError(f"batch_size must be at least 2: the decoder normalises over it, got {self.batch_size}")


def distil(
    model: nn.Module,
    data: Dataset,
    trained: rts_files.Trained,
    plan: Plan,
    terms: Terms,
    attack: Attack,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train the decoder of a masking model in place; it is in evaluation mode afterwards.

    Args:
        model: the classifier; it is not changed.
        data: images and labels.
        trained: the masking model, which the interpreter that `attack` aims at uses.
        plan: the settings.
        terms: the weights of the objective of RTS.
        attack: ADV² on the interpreter.
        progress: called with the number of steps that are done, and of all steps.
        checkpoint: a file that is written every 50 steps; if it exists, training continues from it.

    Raises:
        InputError: the checkpoint is of another training. DataError: labels do not fit the model.
    """
    network, device = trained.network, next(model.parameters()).device
    network.to(device)
    adam = torch.optim.Adam((p for n, p in network.named_parameters() if _learns(n)), plan.rate, weight_decay=DECAY)
    drawn = Drawn(data, plan.batch_size, seed=plan.seed, device=device)

    def lower_objective(batch: tuple[int, tuple[Tensor, Tensor]], generator: Generator) -> Tensor:
        _learn(network, True)
        network.train()
        return objective(model, trained, terms, batch[1], generator)

    def raise_distance(batch: tuple[int, tuple[Tensor, Tensor]], generator: Generator) -> Tensor:
        step, (x, y) = batch
        # attack the classifier and the interpreter as it is now
        network.eval()
        _learn(network, False)
        goal = torch.randint(1, network.classes, (len(x),), generator=generator).to(device)
        goal = (y + goal) % network.classes
        x_adv = attack(model, x, y, goal=goal, generator=Generator(device).manual_seed(step))
        # the distance of the maps of the images that were fooled
        _learn(network, True)
        gap, fooled = _gap(model, trained, x, x_adv, goal)
        return -plan.distance * (gap * fooled).sum() / fooled.sum().clamp_min(1)

    with frozen(model):
        fit(
            network,
            adam,
            lambda step, generator: (step, drawn(step, generator)),
            (lower_objective, raise_distance),
            steps=plan.steps,
            generator=Generator(),
            checkpoint=checkpoint_of(checkpoint, plan, data, trained),
            progress=progress,
        )
    network.requires_grad_(False).eval()


def _gap(model: nn.Module, trained: rts_files.Trained, x: Tensor, x_adv: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Return `|g(x) - g(x')|₁` per pixel of the map, `[B]`, and whether each image reached its goal, bool `[B]`."""
    network = trained.network
    with torch.no_grad():
        shown, fooled = model(x).argmax(1), model(x_adv).argmax(1) == goal
        dtype = network.head.weight.dtype
        features = [features_of(model, images, trained.layers, dtype) for images in (x, x_adv)]
    m, n = network(features[0], shown), network(features[1], goal)
    return (m - n).abs().mean((1, 2, 3)), fooled


def _learns(name: str) -> bool:
    """Return whether a parameter belongs to the decoder; the selector stays as it is."""
    return not name.startswith("selector.")


def _learn(network: nn.Module, on: bool) -> None:
    """Switch the gradients of the decoder on or off."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(on and _learns(name))
