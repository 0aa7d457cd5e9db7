"""The contract of a defence: what every defence of the catalogue promises, and a plugin's should."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from underfire.catalog import Card, DefenseFacts, facts_of
from underfire.defenses import Defended, through
from underfire.errors import InputError, Unsupported
from underfire.model import Classifier
from underfire.testing.models import DOMAINS, toy_batch, toy_classifier
from underfire.testing.promises import check_promises, refused, require


def check_defense(
    defense: Card[DefenseFacts] | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] = (),
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the defence breaks one of the promises of its family; the message names the promise.

    The defence protects a small convolutional network of four classes that takes images of any size.

    Args:
        defense: the function, or its card.
        options: options that the defence requires, and settings that make it quick.
        shape: shape of an image; 3 x 9 x 12 if not given.
        promises: names of some of `PROMISES`; None is all of them.
    """
    function = defense.function if isinstance(defense, Card) else defense
    subject = Subject(function, facts_of(defense, DefenseFacts()), options or {}, shape)
    check_promises(getattr(function, "__name__", repr(function)), subject, PROMISES, promises)


@dataclass(frozen=True)
class Subject:
    """A defence with the options that it is checked with.

    Attributes:
        function: the defence.
        facts: what its card says.
        options: passed to the function.
        shape: shape of an image; empty for the usual one.
    """

    function: Callable[..., Any]
    facts: DefenseFacts
    options: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    def __call__(self, model: Any, **changes: Any) -> Any:
        """Return the defended model."""
        return self.function(model, **self.options, **changes)

    def setting(self, dtype: torch.dtype = torch.float64) -> tuple[Classifier, Tensor]:
        """Return a small network and images."""
        domain = self.facts.domains[0]
        model = toy_classifier(domain, shape=self.shape, dtype=dtype)
        return model, toy_batch(domain, shape=self.shape, dtype=dtype)


def a_classifier(subject: Subject) -> None:
    """Check that the result is a defended classifier of the same domain and classes, also around a plain function."""
    model, x = subject.setting()
    model.labels, model.size = ("a", "b", "c", "d"), (9, 12)
    made = subject(model)
    require(isinstance(made, Defended), f"the result must be a Defended classifier, got {type(made).__name__}")
    require(made.undefended is model, "undefended must be the classifier that was given")
    kept = made.domain is model.domain and made.labels == model.labels and made.size == model.size
    require(kept, "domain, class names and size must be kept")
    require(made.defenses[0] == made.module.name, "the defence itself must come first in `defenses`")
    logits = made(x)
    require(logits.shape == (len(x), 4), f"logits must be [{len(x)}, 4], got {tuple(logits.shape)}")
    require(logits.dtype == x.dtype, f"logits must be {x.dtype}, got {logits.dtype}")
    require(torch.isfinite(logits), "logits must be finite")
    require(made(x[:0]).shape == (0, 4), "an empty batch must have no logits")
    require(torch.equal(subject(lambda x: model(x))(x), logits), "a function must be defended as a module is")


def left_as_found(subject: Subject) -> None:
    """Check that neither the model, nor the images, nor the global random state change."""
    model, x = subject.setting()
    before, clean, random = model(x), x.clone(), torch.get_rng_state()
    made = subject(model)
    made(x), through(made, samples=2)(x)
    require(torch.equal(x, clean), "the defence must not write into x")
    require(torch.equal(model(x), before), "the undefended model answers differently")
    require(torch.equal(torch.get_rng_state(), random), "the global random state changed")
    with torch.inference_mode():
        inside = subject(model)(x.clone())
    require(torch.allclose(subject(model)(x), inside, atol=1e-10), "another answer inside torch.inference_mode()")


def gradient_as_the_card_says(subject: Subject) -> None:
    """Check that a backward pass gives a gradient if the card says so, and otherwise names the way to get one."""
    model, x = subject.setting()
    made = subject(model)
    require(made.differentiable == subject.facts.differentiable, "`differentiable` must be what the card says")
    forms = (made, through(made, bpda=False))
    for form in forms:
        if subject.facts.differentiable:
            _check_gradient(form, x)
        else:
            with refused(Unsupported, "through", "a backward pass without BPDA"):
                _check_gradient(form, x)


def gradient_through(subject: Subject) -> None:
    """Check that `through` gives a gradient, along which the loss of the defended model itself rises."""
    model, x = subject.setting()
    made = subject(model)
    form = through(made, samples=8)
    require(form.differentiable, "the form that is attacked must be differentiable")
    y = made(x).argmax(1)
    slope = _check_gradient(form, x, y)
    fixed = through(made, samples=8)  # the same draws before and after the step
    losses = [torch.nn.functional.cross_entropy(fixed.redraw(5)(x + size * slope.sign()), y) for size in (0, 0.1)]
    require(losses[1] > losses[0], "the loss does not rise along the gradient")


def through_is_the_defence(subject: Subject) -> None:
    """Check that the form that is attacked predicts what the defence predicts, from the same draws."""
    model, x = subject.setting()
    made = subject(model)
    form = through(made, samples=made.module.samples)
    logits, wanted = form.redraw(3)(x), made.redraw(3)(x)
    require(logits.argmax(1) == wanted.argmax(1), "through(model) predicts another class")
    if made.module.samples == 1:
        require(torch.allclose(logits, wanted, atol=1e-10), "through(model) answers differently")
    require(form.undefended is model, "through(model) must have the same classifier behind it")


def random_as_the_card_says(subject: Subject) -> None:
    """Check that passes differ exactly if the card says so, and that a seed or a generator repeats them."""
    model, x = subject.setting()
    made, other = subject(model), subject(model)
    first, second = made(x), made(x)
    require(made.random == subject.facts.random, "`random` must be what the card says")
    require(torch.equal(first, second) != subject.facts.random, f"the card says random={subject.facts.random}")
    require(torch.equal(other(x), first), "two objects must give the same sequence of passes")
    require(torch.equal(made.redraw(4)(x), other.redraw(4)(x)), "the same seed must give the same pass")
    if subject.facts.random:
        require(not torch.equal(made.redraw(5)(x), other.redraw(4)(x)), "another seed must give another pass")
        require("generator" in inspect.signature(subject.function).parameters, "a random defence takes a generator")
        drawn = [subject(model, generator=torch.Generator().manual_seed(9))(x) for _ in range(2)]
        require(torch.equal(*drawn), "the same generator must give the same pass")


def batch_equals_singles(subject: Subject) -> None:
    """Check that an image has the same answer alone as in a batch; a random defence has other draws there."""
    model, x = subject.setting()
    made = subject(model)
    if not made.random:
        singles = torch.cat([made(x[i : i + 1]) for i in range(len(x))])
        require(torch.allclose(made(x), singles, atol=1e-8), "an answer differs in a batch")


def composes(subject: Subject) -> None:
    """Check that the defence defends a defended classifier, and that an attack goes through both."""
    model, x = subject.setting()
    made = subject(subject(model))
    require(made.undefended.undefended is model, "undefended must be the inner defended classifier")
    require(made.defenses[0] == made.undefended.defenses[0], "`defenses` must name both defences")
    require(torch.isfinite(made(x)), "logits must be finite")
    _check_gradient(through(made, samples=2), x)


def any_dtype(subject: Subject) -> None:
    """Check that images keep their dtype, whatever the dtype of the model."""
    model, x = subject.setting(torch.float32)
    model.module.to(torch.bfloat16)
    logits = subject(model)(x)
    require(logits.dtype == x.dtype, f"a bfloat16 model gives logits in {logits.dtype}")
    require(torch.isfinite(logits), "a bfloat16 model gives values that are not finite")


def bad_input(subject: Subject) -> None:
    """Check that a model of another domain and a model that is none are refused."""
    for domain in DOMAINS:
        if domain not in subject.facts.domains:
            with refused(Unsupported, repr(getattr(subject.function, "__name__", "")), f"a model of domain {domain!r}"):
                subject(toy_classifier(domain))
    with refused(InputError, "model", "a model that is a number"):
        subject(3)


def _check_gradient(model: Classifier, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return the gradient of the loss with respect to the images, and require that it is finite and not zero."""
    z = x.clone().requires_grad_(True)
    logits = model(z)
    loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1) if y is None else y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, z)
    require(torch.isfinite(slope), "the gradient must be finite")
    require((slope != 0).flatten(1).any(1), "the gradient of an image is zero")
    return slope


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (
        a_classifier,
        left_as_found,
        gradient_as_the_card_says,
        gradient_through,
        through_is_the_defence,
        random_as_the_card_says,
        batch_equals_singles,
        composes,
        any_dtype,
        bad_input,
    )
}
