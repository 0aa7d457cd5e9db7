"""Inner attacks: the perturbed images of a step, made by any attack of the catalogue on the network of that step.

An attack differentiates by the images alone: the weights are frozen while it runs, so that no weight gets a gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from underfire.ascent.objectives import log_odds
from underfire.catalog import Card, find
from underfire.domains import domain_of
from underfire.errors import InputError, Unsupported
from underfire.hooks import frozen
from underfire.model import Classifier
from underfire.training.ramps import Ramp, check_ramp, ramped
from underfire.training.steps import TrainingStep
from underfire.validate import check_choice

BatchNorm = Literal["eval", "train"]
"""The statistics that batch norm uses while images are crafted: the running averages, or those of the batch."""

Attack = str | Mapping[str, Any] | Callable[..., Tensor]
"""The name of an attack, a mapping of its name and options, or a function `(model, x, y) -> x'`."""

_QUICK: dict[str, Any] = {
    "objective": log_odds(),
    "keep": "last",
}  # what spares passes, and has the gradient's sign of cross-entropy
_STEPS = 7


@dataclass(frozen=True)
class Inner:
    """An attack with its options, and the mode of the network while it runs.

    Attributes:
        attack: `(model, x, y, *, generator) -> x'`; with a ramp, it also takes `share`, the share of eps.
        batch_norm: the statistics of batch norm.
        text: a description that tells inner attacks apart.
        ramp: see `Ramp`; while eps is 0, the images stay clean.
    """

    attack: Callable[..., Tensor] = field(repr=False)
    batch_norm: BatchNorm
    text: str
    ramp: Ramp = (0.0, 0.0)

    def __call__(self, step: TrainingStep, model: nn.Module | None = None, y: Tensor | None = None) -> Tensor:
        """Return the perturbed images of a step, without a graph.

        Args:
            step: the step.
            model: the classifier that is attacked; None is the one that is trained.
            y: the classes that the attack leaves; None are the labels.
        """
        share = ramped(step.number / step.steps, self.ramp)
        if share == 0:
            return step.x
        attacked = attacked_form(step.model, self.batch_norm) if model is None else model
        part = {} if share == 1 else {"share": share}
        with frozen(attacked):
            return self.attack(attacked, step.x, step.y if y is None else y, generator=step.generator, **part).detach()


def inner_attack(attack: Attack, batch_norm: BatchNorm = "eval", ramp: Ramp = (0.0, 0.0), **options: Any) -> Inner:
    """Return the inner attack that `attack` names, with its options checked.

    An attack that climbs an objective climbs the log-odds against the label, whose gradient has the signs of that of
    the cross-entropy, and returns its last iterate, unless its own options say otherwise.

    Args:
        attack: the attack; a mapping has the key `name` and options.
        batch_norm: the statistics of batch norm while it runs.
        ramp: how eps grows.
        options: further options; one that is None is left out.

    Raises:
        InputError: there is no such attack or option, eps is not above 0, or the ramp is wrong. Unsupported:
            `batch_norm` is unknown, or there is a ramp and the attack has no eps.
    """
    check_choice(get_args(BatchNorm), batch_norm=batch_norm)
    check_ramp(ramp)
    given = {name: value for name, value in options.items() if value is not None}
    check_eps(given.get("eps"))
    card = attack if isinstance(attack, Card) else None
    if card is None and callable(attack):
        if ramp[1] > 0:
            raise Unsupported("a function as the inner attack has its own eps, so that ramp must be left out")
        return Inner(_without_generator(attack), batch_norm, f"{getattr(attack, '__qualname__', attack)!s} {given}")
    if isinstance(attack, Mapping):
        if "name" not in attack:
            raise InputError(f"an attack with options is a mapping such as {{name: pgd, steps: 7}}, got {dict(attack)}")
        given |= {name: value for name, value in attack.items() if name != "name"}
        attack = str(attack["name"])
    card = card or find("attack", str(attack))
    if card.name == "pgd":
        given.setdefault("steps", _STEPS)
    usual = {name: value for name, value in _QUICK.items() if name in card.options and name not in given}
    text = f"{card.name} {sorted(given.items())}"
    checked = card.check(given)
    method = inspect.unwrap(card.function)  # the arguments are checked here, once, and not in every step

    if ramp[1] > 0 and checked.get("eps") is None:
        raise Unsupported(f"{card.name} has no eps that ramp could raise; leave ramp out, or use an attack such as pgd")

    def run(model: nn.Module, x: Tensor, y: Tensor, share: float = 1.0, **more: Any) -> Tensor:
        size = {} if share == 1 else {"eps": share * checked["eps"]}
        x_adv: Tensor = method(model, x, y, **checked | size, **usual, **more)
        return x_adv

    return Inner(run if "generator" in card.options else _without_generator(run), batch_norm, text, ramp)


def check_eps(eps: float | Tensor | None) -> None:
    """Raise InputError unless eps is above 0, or None."""
    if isinstance(eps, (int, float)) and not eps > 0:
        raise InputError(f"eps must be above 0, got {eps:g}; the method standard trains without an attack")


def attacked_form(model: Classifier, batch_norm: BatchNorm) -> nn.Module:
    """Return the classifier as an attack shall see it: with the running averages, or with statistics of the batch."""
    return model if batch_norm == "eval" else _BatchStatistics(model)


class _BatchStatistics(nn.Module):
    """A classifier whose batch norms use the statistics of the batch, in evaluation mode, too.

    Their running averages stay as they are.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model, self.domain = model, domain_of(model)
        self.layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`."""
        with self._of_the_batch():
            logits: Tensor = self.model(x)
        return logits

    @contextmanager
    def _of_the_batch(self) -> Iterator[None]:
        before = [(layer.training, layer.track_running_stats) for layer in self.layers]
        try:
            for layer in self.layers:
                layer.training, layer.track_running_stats = True, False
            yield
        finally:
            for layer, (training, tracked) in zip(self.layers, before, strict=True):
                layer.training, layer.track_running_stats = training, tracked


def _without_generator(attack: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an attack that is called without the generator, if it takes none."""
    if "generator" in inspect.signature(attack).parameters:
        return attack
    return lambda model, x, y, *, generator=None, **more: attack(model, x, y, **more)
