"""The interpreter of a training: an explanation whose gradient reaches the image and the weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from underfire.ascent.map_gradients import map_gradient
from underfire.catalog import Card, InterpreterFacts, card_behind, cards, find
from underfire.errors import InputError, Unsupported
from underfire.gradients.estimators import Estimator
from underfire.training.live_weights import live_weights

Interpreter = str | Mapping[str, Any] | Callable[..., Tensor]
"""The name of an interpreter, a mapping of its name and options, or a function `(model, x, y) -> [B, 1, h, w]`."""


@dataclass(frozen=True)
class Explainer:
    """An interpreter with its options, and the estimator of gradients with which an attack steers its map.

    Attributes:
        explain: `(model, x, y) -> [B, 1, h, w]`.
        estimate: the estimator.
        text: a description that tells explainers apart.
    """

    explain: Callable[[nn.Module, Tensor, Tensor], Tensor] = field(repr=False)
    estimate: Estimator = field(repr=False)
    text: str

    def maps(self, model: nn.Module, x: Tensor, classes: Sequence[Tensor]) -> Tensor:
        """Return the maps of `k` classes of every image, int64 `[B]` each, as `[B, k, h, w]`."""
        return torch.cat([self.explain(model, x, y) for y in classes], 1)

    def check(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """Raise Unsupported unless the map of an image depends on a weight by a gradient."""
        with torch.enable_grad():
            with live_weights(model):
                m = self.explain(model, x.detach().requires_grad_(True), y)
            weights = [p for p in model.parameters() if p.requires_grad]
            try:
                slopes = torch.autograd.grad(m.sum(), weights, allow_unused=True) if m.requires_grad else ()
            except CheckpointError:
                raise Unsupported(
                    f"{self.text} computes parts of its map a second time for the gradient, which training "
                    "does not allow; use one such as cam, grad_cam or gradient"
                ) from None
        if all(slope is None for slope in slopes):
            raise Unsupported(
                f"the map of {self.text} has no gradient with respect to the weights, so that it cannot be trained; "
                "use one such as cam, grad_cam or gradient"
            )


def explainer(interpreter: Interpreter, steps: int) -> Explainer:
    """Return the interpreter that is named, with its options checked.

    A map that is itself a gradient is differentiated exactly, and an attack on it sees softplus functions in place of
    rectifiers, see `ascent.map_gradients`.

    Args:
        interpreter: the interpreter.
        steps: number of steps of the inner attack.

    Raises:
        InputError: there is no such interpreter or option. Unsupported: its map is not differentiable.
    """
    options: dict[str, Any] = {}
    method: Any = interpreter
    if isinstance(interpreter, Mapping):
        if "name" not in interpreter:
            raise InputError(f"an interpreter with options is a mapping such as {{name: cam}}, got {dict(interpreter)}")
        options = {name: value for name, value in interpreter.items() if name != "name"}
        interpreter = str(interpreter["name"])
    card = interpreter if isinstance(interpreter, Card) else None
    if isinstance(interpreter, str):
        card = find("interpreter", interpreter)
    named, card = card, card or card_behind(method)
    if card is not None and isinstance(card.facts, InterpreterFacts) and not card.facts.differentiable:
        usable = ", ".join(one.name for one in cards("interpreter") if one.facts.differentiable)
        raise Unsupported(
            f"interpreter {card.name} is not differentiable, so that it cannot be trained; use one of {usable}"
        )
    text = str(getattr(method, "__qualname__", type(method).__name__))
    if named is not None:
        method, text = named.with_options(**named.check(options)), " ".join([named.name, *map(str, options.items())])
    explain, estimate = map_gradient(method, steps)
    return Explainer(_unwrapped(explain), estimate, text)


def _unwrapped(method: Any) -> Any:
    """Return a method without the checks of its arguments, which were made once."""
    if isinstance(method, partial):
        return partial(_unwrapped(method.func), *method.args, **method.keywords)
    return inspect.unwrap(method)
