"""The facts that a card may state, one dataclass for each kind of method.

A fact that is misspelt or has the wrong type raises an error when the method is imported. A fact that a card does not
state has the default given here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from underfire.catalog.options import convert
from underfire.errors import InputError, nearest

Role = Literal[
    "view",
    "smoothing",
    "estimator",
    "backward",
    "move",
    "step_rule",
    "objective",
    "threat",
    "schedule",
    "target",
    "scheme",
]
Table = Literal["rows", "maps", ""]
Quadrant = Literal[
    "prediction changed", "prediction changed, map kept", "prediction kept, map changed", "both changed", "both kept"
]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about a method of any kind.

    Attributes:
        domains: the names of the domains whose inputs the method takes (see `underfire.domains`).
    """

    domains: tuple[str, ...] = ("image",)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values, for JSON and tables; functions are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if not callable(v)}


@dataclass(frozen=True, kw_only=True)
class AttackFacts(Facts):
    """Facts about an attack.

    Attributes:
        knowledge: what the attacker can use: the model's gradients (white-box), or only its answers (black-box).
        norms: the norms that the attack bounds or minimises, its default first.
        goals: the modes that it supports; "kept": a goal may be the label itself, and the class is kept.
        random: whether its result depends on the generator.
        atlas: the identifier of its technique in MITRE ATLAS.
        minimal: whether it looks for the smallest perturbation that succeeds.
        universal: whether it applies one perturbation to the whole batch.
        models: the only kind of model that it takes, such as `"decision tree"`; empty for any classifier.
        quadrant: what it wants to change and to keep, the prediction and the explanation (Noppel and Wressnegger, SoK:
            Explainable Machine Learning in Adversarial Environments, IEEE S&P 2024); `"prediction changed"` says that
            it is not aimed at the explanation.
        quick: options for a short trial run, which an audit makes before it begins.
        train: the function `(model, data, **options) -> network` that trains the network of the attack on a data set;
            None if nothing is trained.
    """

    knowledge: Literal["white-box", "black-box"] = "white-box"
    norms: tuple[str, ...] = ("linf",)
    goals: tuple[Literal["untargeted", "targeted", "kept"], ...] = ("untargeted",)
    random: bool = True
    atlas: str = ""
    minimal: bool = False
    universal: bool = False
    models: str = ""
    quadrant: Quadrant = "prediction changed"
    quick: Mapping[str, Any] = field(default_factory=dict)
    train: Callable[..., Any] | None = None

    @property
    def keeps_prediction(self) -> bool:
        """Return whether it wants the prediction to stay as it is."""
        return self.quadrant in ("prediction kept, map changed", "both kept")


@dataclass(frozen=True, kw_only=True)
class InterpreterFacts(Facts):
    """Facts about an interpreter.

    Attributes:
        family: the group of methods that it belongs to, such as `"back-propagation"`.
        gives: what it returns.
        differentiable: whether gradients flow from its map to the input.
        second_order: whether its map is itself a gradient, so that its derivative is a second one.
        complete: whether its map sums to the change of the explained logit from a baseline to the image.
        per_pixel: whether it makes one forward pass for every pixel.
        models: the only kind of model that it explains, such as `"transformer"`; empty for any classifier.
        detailed: a function `(model, x, y, **options)` that returns the map, and numbers `[B]` by name that say how
            good it is.
        unrolled: a class whose objects run the optimisation that makes the map, a few steps at a time, and carry a
            graph to the input (see `attacks.adv2.scheme.Unrolled`); None if no optimisation makes it.
    """

    family: str = ""
    gives: Literal["map", "images", "examples", "rules"] = "map"
    differentiable: bool = False
    second_order: bool = False
    complete: bool = False
    per_pixel: bool = False
    models: str = ""
    detailed: Callable[..., tuple[Any, dict[str, Any]]] | None = None
    unrolled: Callable[..., Any] | None = None

    @property
    def steerable(self) -> bool:
        """Return whether an attack with gradients can steer the map."""
        return self.differentiable or self.unrolled is not None


@dataclass(frozen=True, kw_only=True)
class DetectorFacts(Facts):
    """Facts about a detector.

    Attributes:
        differentiable: whether gradients flow from its score to the input.
        supervised: whether `fit` needs attacked inputs besides clean ones.
        random: whether a score depends on the generator.
    """

    differentiable: bool = False
    supervised: bool = False
    random: bool = False


@dataclass(frozen=True, kw_only=True)
class DefenseFacts(Facts):
    """Facts about a defence.

    Attributes:
        differentiable: whether gradients flow through the defended classifier.
        random: whether two passes over the same input differ.
        train: the function `(model, data, **options) -> network` that trains the network of the defence, or
            `(data, **options) -> network` if no classifier is needed; None if nothing is trained.
    """

    differentiable: bool = True
    random: bool = False
    train: Callable[..., Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingFacts(Facts):
    """Facts about a method of training.

    Attributes:
        robust: whether the trained classifier is meant to resist attacks.
    """

    robust: bool = False


@dataclass(frozen=True, kw_only=True)
class PoisoningFacts(Facts):
    """Facts about a method of poisoning.

    Attributes:
        clean_label: whether the labels of the poisoned samples stay as they are.
    """

    clean_label: bool = False


@dataclass(frozen=True, kw_only=True)
class MeasureFacts(Facts):
    """Facts about a measure.

    Attributes:
        higher_is_better: whether a higher value is better for those who rely on the model, not for the attacker. It is
            True for the size of a perturbation: a model is better if attacks need a larger one.
        table: the table that an audit writes the measure to: `"rows"` has perturbations and predictions, `"maps"`
            explanations; empty for a measure that no audit computes.
        limits: the smallest and the largest value.
        norms: the norms that it measures.
        whole: whether it is one number for a whole set, and not one per sample.
        timed: whether it measures time, so that repeated calls give different values.
    """

    higher_is_better: bool
    table: Table = ""
    limits: tuple[float, float] | None = None
    norms: tuple[str, ...] = ()
    whole: bool = False
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class PartFacts(Facts):
    """Facts about a part of a recipe.

    Attributes:
        role: the field of `Recipe` that it may fill; `"target"` is the target of an attack on explanations, and
            `"scheme"` the loop of one on an explanation that is optimised.
    """

    role: Role


FACTS: dict[str, type[Facts]] = {
    "attack": AttackFacts,
    "interpreter": InterpreterFacts,
    "detector": DetectorFacts,
    "defense": DefenseFacts,
    "training": TrainingFacts,
    "poisoning": PoisoningFacts,
    "measure": MeasureFacts,
    "part": PartFacts,
}
KINDS = tuple(FACTS)


def check_kind(kind: str) -> None:
    """Raise InputError if there is no such kind; a role, such as `"view"`, is named as the role of a part."""
    if kind not in KINDS:
        role = kind.strip().lower().replace("-", "_").removesuffix("s")
        is_role = role in get_args(Role)
        meant = f"its methods are of kind 'part', with role {role!r}" if is_role else nearest(kind, KINDS)
        raise InputError(f"unknown kind {kind!r}; {meant}")


@cache
def _hints(kind: str) -> dict[str, Any]:
    return get_type_hints(FACTS[kind])


def facts_for(kind: str, name: str, stated: Mapping[str, Any]) -> Facts:
    """Return the facts of a card of `kind`.

    Raises:
        InputError: a fact is unknown, missing or of the wrong type; the message suggests the nearest name.
    """
    made = FACTS[kind]
    known = {f.name: f for f in fields(made)}
    for fact in stated:
        if fact not in known:
            raise InputError(f"the card of {kind} {name!r} states an unknown fact {fact!r}; {nearest(fact, known)}")
    for fact, place in known.items():
        if fact not in stated and place.default is MISSING and place.default_factory is MISSING:
            raise InputError(f"the card of {kind} {name!r} does not state {fact!r}")
    about = f"the card of {kind} {name!r}: "
    try:
        return made(**{fact: convert(fact, value, _hints(kind)[fact]) for fact, value in stated.items()})
    except InputError as error:
        raise InputError(about + str(error)) from None
