"""Compose a transfer attack from the tokens of its name, such as `si_ni_ti_dim`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, get_type_hints

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.step_rules import StepSize
from underfire.ascent.threats import ball
from underfire.attacks.transfer.tokens import BALLS, CONTEXT, TOKENS, Maker, Token
from underfire.catalog import AttackFacts, Card, Grammar, grammars
from underfire.catalog.calls import with_checks
from underfire.catalog.docstrings import arguments, cited
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError, nearest, shown
from underfire.gradients import smoothing, views
from underfire.validate import at_least_one, default_generator

#: Fields of which a recipe has one, with the words for a message.
SINGLE = {"move": "the move", "estimate": "the gradient", "backward": "the backward pass", "loss": "the loss"}


@dataclass(frozen=True)
class Part:
    """A part of a composed attack: the field of the recipe, the function that makes it, and the names of its options.

    Attributes:
        field: the attribute of `Token` that the function comes from.
        make: makes the part.
        options: the name of an option of the attack for each argument of the function.
    """

    field: str
    make: Maker
    options: Mapping[str, str]


def read(name: str) -> dict[str, Token]:
    """Return the tokens of a name, in its order; empty if no word of it is a token.

    Raises:
        InputError: some words are tokens, and another one is not, stands twice, or contradicts another.
    """
    words = name.split("_")
    if not TOKENS.keys() & set(words):
        return {}
    for word in words:
        if word not in TOKENS:
            raise InputError(f"unknown token {shown(word)} in the attack {shown(name)}; {nearest(word, TOKENS)}")
    found = {word: TOKENS[word] for word in words}
    first: dict[Any, str] = {}
    for word in words:
        makers = TOKENS[word].makers()
        makers.pop("usual_move", None)
        for field, maker in makers.items():
            other = first.setdefault(field if field in SINGLE else maker, word)
            if other != word or len(found) < len(words):
                twice = next((w for w in words if words.count(w) > 1), "")
                clash = f"has {twice!r} twice" if twice else f"has both {other!r} and {word!r}"
                what = SINGLE.get(field, f"the same {field}")
                raise InputError(f"the attack {shown(name)} {clash}, and each sets {what}; keep one of them")
    return found


def compose(
    name: str, module: str = "underfire.attacks", *, title: str | None = None, **defaults: Any
) -> Callable[..., Tensor] | None:
    """Return the attack of a name that consists of tokens, or None if no word of the name is a token.

    Args:
        name: tokens joined by underscores.
        module: the module from which the attack can be imported.
        title: the name of the attack; None is that of the tokens.
        defaults: values of options that replace the defaults.

    Raises:
        InputError: some words are tokens, and another one is not, or two contradict each other.
    """
    tokens = read(name)
    if not tokens:
        return None
    parts = _parts(tokens)
    images_only = stated(name)["domains"] == ("image",)

    def attack(model: nn.Module, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        given = {**defaults, **given}
        if images_only:
            domain_of(model).require_images(title or name)
        own = {option for part in parts for option in part.options.values()}
        options = {name: value for name, value in given.items() if name in own}
        rest = {name: value for name, value in given.items() if name not in own}
        return _run(model, x, y, parts, options, **rest)

    base = inspect.signature(_run).parameters
    hints, parameters, texts = get_type_hints(_run), list[Parameter](), dict[str, str]()
    for part in parts:
        own_hints, meanings = get_type_hints(part.make), arguments(part.make)
        for argument, option in part.options.items():
            default = inspect.signature(part.make).parameters[argument].default
            parameters.append(Parameter(option, Parameter.KEYWORD_ONLY, default=default))
            hints[option], texts[option] = own_hints[argument], meanings.get(argument, "")
    rest = [p for p in base.values() if p.name not in ("parts", "options")]
    place = [p.name for p in rest].index("objective")
    order = [
        p.replace(annotation=hints[p.name], default=defaults.get(p.name, p.default))
        for p in (*rest[:place], *parameters, *rest[place:])
    ]
    attack.__signature__ = inspect.Signature(order, return_annotation=Tensor)  # type: ignore[attr-defined]
    attack.__annotations__ = {p.name: p.annotation for p in order} | {"return": Tensor}
    attack.__name__ = attack.__qualname__ = title or name
    attack.__module__ = module
    length = "`step_size`" if "step_size" in defaults else "`eps / steps`"
    attack.__doc__ = _document(list(tokens.values()), {k: v for k, v in texts.items() if v}, length)
    return attack


def stated(name: str) -> dict[str, Any]:
    """Return the paper and the facts on the card of a composed attack."""
    tokens = read(name).values()
    makers = [maker for token in tokens for field, maker in token.makers().items() if field != "usual_move"]
    images = any(token.views or token.smooth or token.backward or token.term for token in tokens)
    return {
        "paper": "; ".join(dict.fromkeys(filter(None, map(cited, makers))))
        or "Kurakin, Goodfellow and Bengio, Adversarial Examples in the Physical World, ICLR Workshops 2017",
        "norms": tuple(norm for norm in BALLS if all(norm in token.norms for token in tokens)),
        "goals": ("untargeted", "targeted"),
        "random": any(token.random for token in tokens),
        "atlas": "AML.T0043.000",
        "domains": ("image",) if images else ADDITIVE,
        "models": next((token.models for token in tokens if token.models), ""),
    }


def card_for(name: str) -> Card[AttackFacts] | None:
    """Return a card that the catalogue does not list, for a name that consists of tokens; None for any other name."""
    attack = compose(name)
    if attack is None:
        return None
    said = stated(name)
    paper, facts = said.pop("paper"), AttackFacts(**said)
    return Card("attack", name, with_checks("attack", attack, facts), paper, facts)


grammars["attack"] = Grammar(
    f"A transfer attack is named by its tokens, joined by underscores, in any combination, such as mi_di_ti: "
    f"{', '.join(TOKENS)}.",
    card_for,
)


def _parts(tokens: Mapping[str, Token]) -> list[Part]:
    """Return the parts of an attack. An option has the name of the argument; if two would share it, the token first."""
    moved = any(token.move for token in tokens.values())
    makers: list[tuple[str, str, Maker]] = []
    for word, token in tokens.items():
        for field, maker in token.makers().items():
            if field == "usual_move":
                if moved:
                    continue
                field, moved = "move", True
            makers.append((word, field, maker))
    names = [[n for n in inspect.signature(maker).parameters if n not in CONTEXT] for _, _, maker in makers]
    taken = [*inspect.signature(_run).parameters, *(name for own in names for name in own)]
    return [
        Part(field, maker, {n: n if taken.count(n) == 1 else f"{word}_{n}" for n in own})
        for (word, field, maker), own in zip(makers, names, strict=True)
    ]


def _document(tokens: Sequence[Token], texts: Mapping[str, str], length: str) -> str:
    """Return the docstring of a composed attack, whose steps have the given length by default."""
    usual = next((token.loss.__name__ for token in tokens if token.loss), "log_odds")
    ideas = list(dict.fromkeys(token.said for token in tokens))
    said = " and ".join(filter(None, (", ".join(ideas[:-1]), ideas[-1])))
    lines = [f"    {option}: {text}" for option, text in texts.items()]
    lines.append("    step_size: size of a step; None is `eps / steps`.")
    lines.append(f"    objective: what to make large, averaged over the views; None is `{usual}`.")
    return "\n".join([f"Take steps of {length} with {said}.", "", "Args:", *lines])


def _run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    parts: Sequence[Part],
    options: Mapping[str, Any],
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 10,
    step_size: StepSize | None = None,
    objective: Objective | None = None,
    keep: Keep = "last",
    restarts: int = 1,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run the attack that consists of the parts."""
    at_least_one(steps=steps)
    threat = ball(norm, eps, mask, among=BALLS)  # first, because it checks eps
    generator = default_generator(generator, x.device)
    length: StepSize = eps / steps if step_size is None else step_size
    context = dict(zip(CONTEXT, (model, x, y, goal, eps, steps, length, objective, generator), strict=True))
    # make the parts, each from its own options and what it asks of the attack; the loss first, which terms may ask for
    made: dict[str, list[Any]] = {}
    for part in sorted(parts, key=lambda part: part.field != "loss"):
        asked = {name: context[name] for name in inspect.signature(part.make).parameters if name in CONTEXT}
        own = {argument: options[option] for argument, option in part.options.items() if option in options}
        made.setdefault(part.field, []).append(part.make(**own, **asked))
        if part.field == "loss" and objective is None:
            context["objective"] = made["loss"][0]
    # put them into the recipe
    single = {field: made[field][0] for field in SINGLE if field in made}
    loss = single.pop("loss", None) or log_odds()
    total: Objective = objective or loss
    for term in made.get("term", []):
        total = total + term
    several: dict[str, Any] = {}
    for field, join in (("views", views.compose), ("smooth", smoothing.chain)):
        if field in made:
            several[field] = made[field][0] if len(made[field]) == 1 else join(*made[field])
    recipe = Recipe(total, threat, step_rule=length, keep=keep, **single, **several)
    return ascend(model, x, y, recipe, steps=steps, goal=goal, restarts=restarts, generator=generator)
