"""One step of a training, and the loss that uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from underfire.model import Classifier


@dataclass(frozen=True)
class TrainingStep:
    """Everything that the loss of a training may use in one step.

    Attributes:
        model: the classifier that is trained, in training mode.
        x: the images of the batch, `[B, ...]`.
        y: their labels, int64 `[B]`.
        number: number of steps done before this one.
        steps: number of all steps.
        generator: source of random numbers, on the device of `x`.
    """

    model: Classifier
    x: Tensor
    y: Tensor
    number: int
    steps: int
    generator: Generator


Loss = Callable[[TrainingStep], Tensor]
"""`step -> [B]`, the loss of every image, whose mean is minimised."""
