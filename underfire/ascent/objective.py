"""The objective of an attack: a weighted sum of terms, with one value per row `[B]`, that the attack maximises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.step import Step
from underfire.errors import Unsupported

Term = Callable[[Step], Tensor]
"""A function that returns one value per row, `[B]`; a larger value is better for the attacker."""
Weight = float | Callable[[float], float]
"""The factor of a term: a number, or a function of the share of the steps that are done."""


@dataclass(frozen=True)
class Start:
    """The samples that an attack begins with: everything that a term may use to prepare for them.

    Attributes:
        model: the model under attack.
        x: the clean samples, `[N, ...]`.
        y: labels, int64 `[N]`.
        goal: classes to reach, int64 `[N]`, or None if any class but `y` is a success.
        project: maps perturbed samples `[N, ...]` to the nearest ones that the threat allows.
        generator: source of random numbers.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    goal: Tensor | None
    project: Callable[[Tensor], Tensor]
    generator: Generator | None


@dataclass(frozen=True)
class Prepared:
    """A term that is made when an attack begins, because it compares with the clean samples.

    Attributes:
        prepare: returns the term for the samples of an attack.
    """

    prepare: Callable[[Start], Term]

    def __call__(self, step: Step) -> Tensor:
        """Raise Unsupported: the caller has not prepared the objective."""
        raise Unsupported(
            "this objective compares with the clean inputs, which this attack does not give it; use one that takes "
            "steps within an eps, such as recipe, pgd or mi_fgsm"
        )

    def begin(self, start: Start, sources: Sequence[nn.Module]) -> Term:
        """Return the term for the samples of an attack, for a step on any of the sources or another model."""
        made = {model: self.prepare(replace(start, model=model)) for model in sources}

        def term(step: Step) -> Tensor:
            if step.model not in made:
                made[step.model] = self.prepare(replace(start, model=step.model))
            return made[step.model](step)

        return term


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms `step -> [B]`; a weight is a number, or a function of `step.progress`.

    Attributes:
        terms: the weights and the terms.
        logits_only: whether the terms compute from the logits alone, so that no other pass of the model can share work.
        first_order: whether the terms differentiate no pass themselves, and read only layers that they have read when
            the attack began; passes can then be made faster.
    """

    terms: tuple[tuple[Weight, Term], ...]
    logits_only: bool = False
    first_order: bool = False

    def __call__(self, step: Step) -> Tensor:
        """Return the objective of every row, `[B]`, with the weights of this step."""
        return self.weigh(self.parts(step), step.progress)

    def begin(self, start: Start, sources: Sequence[nn.Module]) -> Objective:
        """Return the objective for the samples of an attack: terms that compare with the clean samples are made.

        Args:
            start: the samples.
            sources: the models whose steps the objective will see.
        """
        terms = ((w, term.begin(start, sources) if isinstance(term, Prepared) else term) for w, term in self.terms)
        return replace(self, terms=tuple(terms))

    def parts(self, step: Step) -> list[Tensor]:
        """Return the value of every term without its weight, `[B]` each."""
        return [term(step) for _, term in self.terms]

    def weigh(self, parts: list[Tensor], progress: float) -> Tensor:
        """Return the weighted sum of `parts`, with the weights at `progress`, the share of the steps that are done."""
        weights = (weight(progress) if callable(weight) else weight for weight, _ in self.terms)
        weighed = [weight * part for weight, part in zip(weights, parts, strict=True)]
        return torch.stack(weighed).sum(0) if len(weighed) > 1 else weighed[0]

    def __add__(self, other: Objective) -> Objective:
        flags = (self.logits_only and other.logits_only, self.first_order and other.first_order)
        return Objective(self.terms + other.terms, *flags)

    def __mul__(self, factor: Weight) -> Objective:
        def scaled(weight: Weight) -> Weight:
            if not callable(weight) and not callable(factor):
                return weight * factor
            return lambda t: (weight(t) if callable(weight) else weight) * (factor(t) if callable(factor) else factor)

        return replace(self, terms=tuple((scaled(weight), term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __neg__(self) -> Objective:
        return self * -1.0


def objective(term: Term, *, logits_only: bool = False, first_order: bool = False) -> Objective:
    """Return the objective that consists of one term, with weight 1; see `Objective` for what else it states."""
    return Objective(((1.0, term),), logits_only, logits_only or first_order)
