"""The input of the second phase of ADV², and the choice of the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter, Objective
from underfire.ascent.step import Step
from underfire.ascent.step_rules import StepSize
from underfire.ascent.threats import Threat
from underfire.attacks.adv2.scheme import Bilevel
from underfire.catalog import card_behind, cards
from underfire.errors import Unsupported


@dataclass(frozen=True)
class Plan:
    """Everything that the second phase of ADV², which attacks prediction and explanation together, needs.

    Attributes:
        model: the model under attack.
        x: clean images, `[B, C, H, W]`.
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`.
        z: the variable of the threat at which the phase begins: the result of the warm start.
        interpreter: the interpreter under attack.
        target: the maps that the explanations should become, `[B, 1, h, w]`.
        threat: what may change, and by how much.
        prediction: the objective of the prediction, minus the prediction loss.
        weight: the weight of the map loss at each share of the steps.
        also: further terms of the objective, such as a detector's hinge or the smoothness of a flow field; None is
            none.
        steps: number of steps.
        step_size: the size of each step; None leaves the choice to the loop.
        usual: the size of a step of the warm start.
        move: how gradients are used.
        confidence: probability of the goal above which iterates are compared by everything but the prediction.
        tau: width of the smoothing of ReLU's derivative; None leaves the choice to the loop.
        pool: side of the squares over which maps are averaged before they are compared.
        scheme: the constants of the loop for interpreters that optimise their maps.
        generator: source of every random number.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    goal: Tensor
    z: Tensor
    interpreter: Interpreter
    target: Tensor
    threat: Threat
    prediction: Objective
    weight: Callable[[float], float]
    also: Objective | None
    steps: int
    step_size: StepSize | None
    usual: float | Tensor
    move: Move
    confidence: float
    tau: float | None
    pool: int
    scheme: Bilevel
    generator: Generator

    def rank(self, step: Step, value: Tensor) -> Tensor:
        """Return the score that decides which of two successful iterates is returned, `[B]`.

        Below the wanted confidence, iterates compete by confidence, in `[-3, -2]`; above it by the map loss and the
        further terms, whose weighted sum is squeezed into `[-1, 1]`.

        Args:
            step: the iterate.
            value: its objective, with the weights of the last step.
        """
        fooled = step.logits.softmax(1).gather(1, self.goal[step.index, None]).squeeze(1)
        rest = value - self.prediction(step)
        return torch.where(fooled >= self.confidence, rest / (1 + rest.abs()), fooled - 3)


Loop = Callable[[Plan], Tensor]
"""A function that runs the second phase and returns the adversarial images."""


def attackable() -> list[str]:
    """Return the names of the interpreters that ADV² attacks: differentiable ones, and those that can be unrolled."""
    return [card.name for card in cards("interpreter") if card.facts.gives == "map" and card.facts.steerable]


def loop_of(interpreter: Interpreter, direct: Loop, bilevel: Loop) -> Loop:
    """Return the loop that attacks an interpreter: `bilevel` if it can be unrolled, and `direct` otherwise.

    Raises:
        Unsupported: the card of the interpreter says that its map is not differentiable, and it cannot be unrolled.
    """
    card = card_behind(interpreter)
    if card is not None and not card.facts.steerable:
        raise Unsupported(
            f"{card.name} is not differentiable, so adv2 cannot attack it; it attacks {', '.join(attackable())}; "
            "adv2_black_box needs no gradient"
        )
    return direct if card is None or card.facts.unrolled is None else bilevel
