"""The contract of an attack: what every attack of the catalogue promises, and a plugin's attack should."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from underfire.catalog import AttackFacts, Card, facts_of
from underfire.errors import DataError, InputError, Unsupported
from underfire.measures import perturbation
from underfire.model import Classifier
from underfire.testing import any_model
from underfire.testing.models import BIG, DOMAINS, EPS, largest, toy_batch, toy_classifier
from underfire.testing.promises import check_promises, refused, require


def check_attack(
    attack: Card[AttackFacts] | Callable[..., Tensor],
    *,
    options: Mapping[str, Any] | None = None,
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the attack breaks one of the promises of its family; the message names the promise.

    The attack runs on small random networks, on every domain that its card names.

    Args:
        attack: the function, or its card.
        options: options that the attack requires, and settings that make it quick.
        promises: names of some of `PROMISES`; None is all of them.
    """
    function = attack.function if isinstance(attack, Card) else attack
    subject = Subject(function, facts_of(attack, AttackFacts()), options or {})
    check_promises(getattr(function, "__name__", repr(function)), subject, PROMISES, promises)


@dataclass(frozen=True)
class Subject:
    """An attack with the options that it is checked with.

    Attributes:
        function: the attack.
        facts: what its card says.
        options: passed in every call.
    """

    function: Callable[..., Tensor]
    facts: AttackFacts
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the options that the attack has."""
        return frozenset(inspect.signature(self.function).parameters)

    @property
    def domain(self) -> str:
        """The first domain of the card."""
        return self.facts.domains[0]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
        """Run the attack with a seeded generator; `norm` is left out if the attack has no such option."""
        options = {"generator": torch.Generator(x.device).manual_seed(1), **self.options, **changes}
        if "norm" not in self.parameters:
            options.pop("norm", None)
        return self.function(model, x, y, **options)

    def setting(self, dtype: torch.dtype = torch.float32) -> tuple[Classifier, Tensor, Tensor]:
        """Return a model of the first domain, a batch, and the classes that the model predicts."""
        model, x = toy_classifier(self.domain, dtype=dtype), toy_batch(self.domain, dtype=dtype)
        return model, x, model(x).detach().argmax(1)


def _check_result(subject: Subject, x: Tensor, x_adv: Tensor, norm: str, eps: Tensor, domain: str) -> None:
    require(x_adv.shape == x.shape, f"the result must be shaped {tuple(x.shape)}, got {tuple(x_adv.shape)}")
    require(x_adv.dtype == x.dtype, f"the result must be {x.dtype}, got {x_adv.dtype}")
    require(not x_adv.requires_grad, "the result must not require a gradient")
    require(DOMAINS[domain].contains(x_adv), f"a value leaves the box of domain {domain!r}")
    require(perturbation.within(x, x_adv, norm, eps), f"the {norm} size exceeds eps")
    require(torch.equal(x_adv[0], x[0]), f"an eps of 0 must change nothing ({norm})")


def shape_box_and_size(subject: Subject) -> None:
    """Check that the result has the shape and dtype of `x`, lies in the box, and is at most eps away, in every norm."""
    for dtype in (torch.float32, torch.float64):
        model, x, y = subject.setting(dtype)
        for norm in subject.facts.norms:
            eps = torch.linspace(0, 2, len(x), dtype=dtype) * EPS.get(norm, 0.5)
            before = x.clone()
            _check_result(subject, x, subject(model, x, y, eps=eps, norm=norm), norm, eps, subject.domain)
            require(torch.equal(x, before), "the attack must not write into x")


def every_domain(subject: Subject) -> None:
    """Check that the attack runs on every domain of its card, keeps fixed columns, and refuses other domains."""
    for domain, kind in DOMAINS.items():
        shape = (5, 7, 7) if domain == "image" else ()
        model = toy_classifier(domain, shape=shape, dtype=torch.float32)
        x = toy_batch(domain, shape=shape, dtype=torch.float32)
        y = model(x).detach().argmax(1)
        norm = subject.facts.norms[0]
        if domain not in subject.facts.domains:
            with refused(Unsupported, repr(domain), f"a model of domain {domain!r}, which its card does not name,"):
                subject(model, x, y, eps=EPS.get(norm, 0.5), norm=norm)
            continue
        for norm in subject.facts.norms:
            eps = torch.linspace(0, 1, len(x)) * min(2 * EPS.get(norm, 0.5), largest(norm, domain, x))
            x_adv = subject(model, x, y, eps=eps, norm=norm)
            _check_result(subject, x, x_adv, norm, eps, domain)
            fixed = [i for i, column in enumerate(kind.kinds) if column != "numeric"]
            require(torch.equal(x_adv[..., fixed], x[..., fixed]), f"a column of domain {domain!r} may not change")
        if domain != "image":
            x_adv = subject(model, x, y, eps=min(BIG.get(norm, 1.0), largest(norm, domain, x)), norm=norm)
            require((model(x_adv).argmax(1) != y).any(), f"no sample of domain {domain!r} was fooled")


def deterministic(subject: Subject) -> None:
    """Check that two calls with equal generators, or without one, give equal results, whatever the global seed.

    An attack whose card does not say random gives the same result with a generator as without one.
    """
    model, x, y = subject.setting()

    def run(generator: str, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found = subject(model, x, y, **({"generator": None} if generator == "no generator" else {}))
            require(torch.equal(torch.get_rng_state(), before), f"with {generator} the global random state changed")
        return found

    given, none = "a generator", "no generator"
    for first, second in ((given, given), (none, none)) if subject.facts.random else ((given, none),):
        equal = torch.equal(run(first, 0), run(second, 12345))
        require(equal, f"two calls differ, with {first} and with {second}")


def model_left_as_found(subject: Subject) -> None:
    """Check that modes, hooks, weights and gradients of the model are kept, and that no weight gets a gradient."""
    model, x, y = subject.setting()
    model.train()
    layers = list(model.module.children())
    layers[1].eval()
    next(layers[-1].parameters()).requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}

    def state() -> list[Any]:
        hooks = [
            (m.training, len(m._forward_hooks), len(m._backward_hooks), "forward" in vars(m)) for m in model.modules()
        ]
        return [hooks, [(p.requires_grad, p.grad) for p in model.parameters()]]

    before = state()

    def asked(*_: Any) -> None:
        require(not any(p.requires_grad for p in model.parameters()), "a weight requires a gradient; see hooks.frozen")

    handle = layers[0].register_forward_pre_hook(asked)
    subject(model, x, y)
    handle.remove()
    require(state() == before, "the mode, a hook or a gradient of a module changed")
    require(all(torch.equal(v, weights[k]) for k, v in model.state_dict().items()), "a weight changed")


def goal_works_or_raises(subject: Subject) -> None:
    """Check that a goal becomes likelier if the card says "targeted", and raises Unsupported otherwise."""
    model, x, y = subject.setting()
    logits = model(x).detach()
    goal = logits.topk(2, dim=1).indices[:, 1]
    if "targeted" not in subject.facts.goals:
        with refused(Unsupported, "goal", "a goal"):
            subject(model, x, y, goal=goal)
        return
    x_adv = subject(model, x, y, goal=goal, eps=BIG.get(subject.facts.norms[0], 1.0) / 2.5)
    reached = model(x_adv).detach()
    before, after = (m.log_softmax(1).gather(1, goal[:, None]).squeeze(1) for m in (logits, reached))
    # Not for an attack by a substitute: it learns from labels alone, and here the model predicts only one class.
    if (subject.facts.knowledge, subject.facts.atlas) != ("black-box", "AML.T0043.002"):
        # A goal that is now the prediction is a success, even if its own probability fell.
        share = float(((after > before) | (reached.argmax(1) == goal)).float().mean())
        require(share >= (0.6 if subject.facts.random else 1), f"the goal became likelier for {share:.0%} of samples")
    if "kept" not in subject.facts.goals:
        with refused(InputError, "goal equals the label", "a goal that equals the label"):
            subject(model, x, y, goal=y)


def prediction_kept(subject: Subject) -> None:
    """Check that every predicted class stays as it is, also a wrong one, if the card says so."""
    if subject.facts.quadrant != "prediction kept, map changed":
        return
    model, x, y = subject.setting()
    for norm in subject.facts.norms:
        x_adv = subject(model, x, (y + 1) % 4, eps=BIG.get(norm, 1.0) / 2, norm=norm)
        require(model(x_adv).argmax(1) == y, f"a predicted class changed ({norm})")
        require(not torch.equal(x_adv, x), f"no image changed ({norm})")


def batch_equals_singles(subject: Subject) -> None:
    """Check that a sample has the same result in any batch, unless the card says random or universal.

    The first sample has the smallest eps and the last the largest: each is alone, and those between are together.
    """
    options = {"random_start": False} if "random_start" in subject.parameters else {}
    if subject.facts.universal or (subject.facts.random and not options):
        return
    model, x, y = subject.setting(torch.float64)
    for norm in subject.facts.norms:
        eps = torch.linspace(0.2, 2, len(x), dtype=x.dtype) * EPS.get(norm, 0.5)
        batch = subject(model, x, y, eps=eps, norm=norm, **options)
        for part in (slice(0, 1), slice(1, len(x) - 1), slice(len(x) - 1, len(x))):
            apart = subject(model, x[part], y[part], eps=eps[part], norm=norm, **options)
            same = torch.isclose(batch[part], apart, atol=1e-9).flatten(1).all(1)
            require(same, f"samples {part.start} to {part.stop - 1} differ in a batch ({norm})")


def any_precision(subject: Subject) -> None:
    """Check float64 eps with float32 `x`, a model in half precision, and a model of only two classes."""
    model, x, y = subject.setting()
    for norm in subject.facts.norms:
        eps = torch.full((len(x),), EPS.get(norm, 0.5), dtype=torch.float64)
        x_adv = any_model.run_quickly(subject, model, x, y, eps=eps, norm=norm)
        require(x_adv.dtype == torch.float32, f"eps in float64 gives a result in {x_adv.dtype} ({norm})")
    for shape in ((1, 8, 8), (3, 8, 8)) if subject.domain == "image" else ((),):
        model = toy_classifier(subject.domain, shape=shape, classes=2)
        x = toy_batch(subject.domain, 3, shape=shape, dtype=torch.float32)
        y = model(x).argmax(1)
        model.module.to(torch.bfloat16)
        x_adv = subject(model, x, y)
        require(x_adv.dtype == torch.float32, f"a bfloat16 model gives a result in {x_adv.dtype}")
        require(torch.isfinite(x_adv), "a bfloat16 model gives values that are not finite")


def misclassified_stays(subject: Subject) -> None:
    """Check that a sample that the model gets wrong from the start stays wrong."""
    model, x, y = subject.setting()
    wrong = (y + 1) % 4
    x_adv = subject(model, x, wrong, eps=EPS.get(subject.facts.norms[0], 0.5) / 10)
    share = float((model(x_adv).argmax(1) != wrong).float().mean())
    require(share >= 0.8, f"only {share:.0%} of misclassified samples stay so")


def empty_batch(subject: Subject) -> None:
    """Check that an empty batch comes back empty."""
    model, x, y = subject.setting()
    x_adv = subject(model, x[:0], y[:0])
    require(x_adv.shape == x[:0].shape, f"an empty batch gives {tuple(x_adv.shape)}")


def bad_input(subject: Subject) -> None:
    """Check that wrong inputs, labels and options each raise the right error."""
    model, x, y = subject.setting()
    y = torch.zeros_like(y)
    cases: list[tuple[type[Exception], str, str, tuple[Tensor, Tensor], dict[str, Any]]] = [
        (DataError, "must be in", "values outside the box", (x + 10, y), {}),
        (DataError, "must be in", "NaN", (x * float("nan"), y), {}),
        (DataError, "float32 or float64", "whole numbers", ((x * 255).to(torch.uint8), y), {}),
        (DataError, "float32 or float64", "half precision", (x.bfloat16(), y), {}),
        (DataError, "labels must be int64", "too few labels", (x, y[:2]), {}),
        (DataError, "label 9 is outside", "an unknown label", (x, y + 9), {}),
        (InputError, "eps must be >= 0", "a negative eps", (x, y), {"eps": -0.1}),
        (InputError, "one per sample", "an eps per sample of another batch", (x, y), {"eps": torch.ones(2)}),
    ]
    cases += [(InputError, n, f"{n}=0", (x, y), {n: 0}) for n in ("steps", "queries") if n in subject.parameters]
    if "norm" in subject.parameters:
        cases.append((Unsupported, "l7", "an unknown norm", (x, y), {"norm": "l7"}))
    for error, words, what, arguments, options in cases:
        with refused(error, words, what):
            subject(model, *arguments, **options)


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (
        shape_box_and_size,
        every_domain,
        deterministic,
        model_left_as_found,
        goal_works_or_raises,
        prediction_kept,
        batch_equals_singles,
        any_precision,
        misclassified_stays,
        empty_batch,
        bad_input,
        *any_model.PROMISES,
    )
}
