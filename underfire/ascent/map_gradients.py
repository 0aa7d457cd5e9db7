"""The gradient of an objective that contains the map of an interpreter."""

from __future__ import annotations

from functools import partial
from typing import Any

from underfire.ascent.objectives import Interpreter
from underfire.catalog import InterpreterFacts, card_behind, cards, facts_of
from underfire.errors import Unsupported
from underfire.gradients.estimators import Estimator, autograd
from underfire.gradients.softplus import softplus


def map_gradient(interpreter: Interpreter, steps: int) -> tuple[Interpreter, Estimator]:
    """Return the interpreter and the estimator with which attacks on its map obtain their gradient.

    If the map is itself a gradient, its derivative is taken exactly, on the network with softplus functions in place of
    rectifiers, as Ghorbani et al. (AAAI 2019) and Dombrowski et al. (NeurIPS 2019) do. An option `double_backward` that
    is bound to the interpreter stays as it is, and then the network does, too. For any other map the gradient is plain.
    The map itself is the same in every case.

    Args:
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, differentiable in `x`.
        steps: number of steps of the attack.

    Raises:
        Unsupported: the card of the interpreter says that its map is not differentiable.
    """
    card = card_behind(interpreter)
    if card is not None and not facts_of(interpreter, InterpreterFacts(differentiable=True)).differentiable:
        usable = ", ".join(other.name for other in cards("interpreter") if other.facts.differentiable)
        raise Unsupported(
            f"{card.name} is not differentiable, so gradients cannot attack its map; use one of {usable}; "
            "explanation_only_black_box and adv2_black_box need no gradient"
        )
    chosen = card is None or "double_backward" not in card.options or "double_backward" in _bound(interpreter)
    if chosen or not facts_of(interpreter, InterpreterFacts()).second_order:
        return interpreter, autograd
    return partial(interpreter, double_backward="exact"), softplus(10.0, 100.0, steps)


def _bound(interpreter: Any) -> set[str]:
    """Return the names of the options that are bound to an interpreter by `functools.partial`."""
    names: set[str] = set()
    while isinstance(interpreter, partial):
        names |= set(interpreter.keywords)
        interpreter = interpreter.func
    return names
