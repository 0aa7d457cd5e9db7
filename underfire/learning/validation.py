"""Measure a classifier while it is trained: its accuracy on clean and on attacked images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from underfire.errors import DataError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_labels

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""`(model, x, y) -> x'`, such as `functools.partial(pgd, eps=8 / 255, steps=10)`."""


@dataclass(frozen=True, eq=False)
class AttackedAccuracy:
    """Measure the accuracy on held-out images, clean and under attacks; a call with a model returns the metrics.

    `functools.partial(AttackedAccuracy(x, y, attacks), model)` is a `validate` of `fit`. The model is measured in
    evaluation mode.

    Attributes:
        x: the images `[n, ...]`.
        y: their classes, int64 `[n]`.
        attacks: attacks by name. For the check of `MaskingGuard`, they are a single-step attack and PGD.
        chunk: number of images in one pass.
    """

    x: Tensor
    y: Tensor
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    chunk: int = 128

    def __post_init__(self) -> None:
        at_least_one(chunk=self.chunk)
        check_labels(self.x, self.y)
        if not len(self.x):
            raise DataError("the accuracy needs at least one held-out image")

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return `accuracy`, and `accuracy under NAME` for each attack."""
        attacks: dict[str, Attack] = {"accuracy": lambda model, x, y: x}
        attacks |= {f"accuracy under {name}": attack for name, attack in self.attacks.items()}
        device = next((weight.device for weight in model.parameters()), self.x.device)
        right = dict.fromkeys(attacks, 0)
        with frozen(model):
            for x, y in zip(self.x.split(self.chunk), self.y.split(self.chunk), strict=True):
                x, y = x.to(device), y.to(device)
                for name, attack in attacks.items():
                    x_adv = attack(model, x, y)
                    with torch.no_grad():
                        right[name] += int((model(x_adv).argmax(1) == y).sum())
        return {name: count / len(self.y) for name, count in right.items()}
