"""The contract of an interpreter: what every interpreter of the catalogue promises, and a plugin's should."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.catalog import Card, InterpreterFacts, facts_of
from underfire.data import Dataset
from underfire.errors import DataError, InputError, NotFitted
from underfire.model import Classifier
from underfire.records import Batch
from underfire.testing.models import SHAPES, toy_classifier, toy_transformer
from underfire.testing.promises import check_promises, default_dtype, refused, require

BATCH = 4
_DTYPE = torch.float64


def check_interpreter(
    interpreter: Card[InterpreterFacts] | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    fit_options: Mapping[str, Any] | None = None,
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the interpreter breaks one of the promises of its family; the message names the promise.

    The interpreter explains images of 9 x 12 pixels for a small network of four classes, a transformer if its card says
    that it explains no other, and otherwise a convolutional one. Promises about
    maps are not checked for interpreters that give something else.

    Args:
        interpreter: the function or the class, or its card.
        options: options that the interpreter requires, and settings that make it quick.
        fit_options: such options for the method `fit` of a class.
        promises: names of some of `PROMISES`; None is all of them.
    """
    method = interpreter.function if isinstance(interpreter, Card) else interpreter
    facts = facts_of(interpreter, InterpreterFacts(differentiable=True, second_order=True))
    subject = Subject(method, facts, options or {}, fit_options or {})
    check_promises(subject.name, subject, PROMISES, promises)


class KnownImages:
    """A source of 24 random images of four classes, which interpreters that must be fitted learn from."""

    labels: tuple[str, ...] | None = ("a", "b", "c", "d")

    def __len__(self) -> int:
        """Return the number of images."""
        return 24

    def read(self, index: Sequence[int]) -> Batch:
        """Return the images at these indices."""
        x = torch.rand(24, *SHAPES["image"], generator=torch.Generator().manual_seed(5), dtype=_DTYPE)
        rows = list(index)
        return Batch(x[rows], torch.arange(24)[rows] % 4, tuple(map(str, rows)))


@dataclass(frozen=True)
class Subject:
    """An interpreter with the options that it is checked with.

    Attributes:
        method: the function, or the class.
        facts: what its card says; without a card, those of a differentiable map.
        options: passed in every call, or to the class.
        fit_options: passed to `fit`.
    """

    method: Callable[..., Any]
    facts: InterpreterFacts
    options: Mapping[str, Any] = field(default_factory=dict)
    fit_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the function or the class."""
        return getattr(self.method, "__name__", type(self.method).__name__)

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the options."""
        return frozenset(inspect.signature(self.method).parameters)

    @property
    def gives_map(self) -> bool:
        """Return whether the interpreter returns a map."""
        return self.facts.gives == "map"

    def prepared(self, model: nn.Module, **changes: Any) -> Callable[..., Any]:
        """Return `(model, x, y) -> explanation` with the options bound; an object of a class is fitted to the model."""
        options = {**self.options, **changes}
        if not inspect.isclass(self.method):
            return lambda model, x, y: self.method(model, x, y, **options)
        made: Any = self.method(**options)
        made.fit(model, Dataset("known images", KnownImages()), **self.fit_options)
        return made


class _Smooth(nn.Module):
    """Softplus, and a ReLU far above its kink, so that methods with a rule for rectifiers find one."""

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.relu(nn.functional.softplus(z) + 1000) - 1000


def setting(subject: Subject, *, smooth: bool = False) -> tuple[Classifier, Tensor, Tensor]:
    """Return a small network, a batch of images and one class for each; `smooth` replaces ReLU by softplus."""
    model = (toy_transformer if subject.facts.models == "transformer" else toy_classifier)(dtype=_DTYPE)
    if smooth:
        for name, module in list(model.module.named_children()):
            if isinstance(module, nn.ReLU):
                setattr(model.module, name, _Smooth())
    x = torch.rand(BATCH, *SHAPES["image"], generator=torch.Generator().manual_seed(0), dtype=_DTYPE)
    return model, x, torch.arange(BATCH) % 4


def _equal(a: Any, b: Any) -> bool:
    """Return whether two explanations are equal: maps, images, words, or examples in every tensor."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if not is_dataclass(a):
        return bool(a == b)
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return all(_equal(one, other) for one, other in pairs)


def map_shape_and_dtype(subject: Subject) -> None:
    """Check that a map is `[B, 1, h, w]`, no larger than the image, finite, of the dtype of `x`, without a graph."""
    if not subject.gives_map:
        return
    model, x, y = setting(subject)
    m = subject.prepared(model)(model, x, y)
    require(isinstance(m, Tensor), f"the map must be a tensor, got {type(m).__name__}")
    require(m.dim() == 4 and m.shape[:2] == (BATCH, 1), f"a map must be [{BATCH}, 1, h, w], got {tuple(m.shape)}")
    require(m.shape[2] <= x.shape[2] and m.shape[3] <= x.shape[3], "a map must not be larger than the image")
    require(m.dtype == x.dtype, f"a map must be {x.dtype}, got {m.dtype}")
    require(torch.isfinite(m), "a map must be finite")
    require(not m.requires_grad, "a map must not carry a graph where x requires no gradient")
    with torch.no_grad():
        require(_equal(subject.prepared(model)(model, x, y), m), "the map differs where gradients are off")


def batch_equals_singles(subject: Subject) -> None:
    """Check that an image has the same map alone as in a batch, and for any chunk."""
    if not subject.gives_map:
        return
    model, x, y = setting(subject)
    interpret = subject.prepared(model)
    batch = interpret(model, x, y)
    singles = torch.cat([interpret(model, x[i : i + 1], y[i : i + 1]) for i in range(BATCH)])
    require(torch.allclose(batch, singles, atol=1e-10), "a map differs in a batch")
    if "chunk" in subject.parameters:
        chunked = subject.prepared(model, chunk=3)(model, x, y)
        require(torch.allclose(batch, chunked, atol=1e-10), "a map depends on the chunk")


def differentiable_as_the_card_says(subject: Subject) -> None:
    """Check that a map carries a graph to `x` exactly if its card says so, and that its derivative is right."""
    if not subject.gives_map:
        return
    for changes, tolerance in _double_backwards(subject):
        model, x, y = setting(subject, smooth=True)
        x.requires_grad_()
        interpret = subject.prepared(model, **changes)
        m = interpret(model, x, y)
        said = subject.facts.differentiable
        require(m.requires_grad == said, f"the card says differentiable={said}, the map says {m.requires_grad}")
        if said:
            gap = _derivative_gap(interpret, model, x, y, m)
            require(gap <= tolerance, f"the map's derivative is wrong by {gap:.2g} of its length ({changes})")


def _double_backwards(subject: Subject) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the options for the default derivative, and for the exact one if it exists, each with the largest error."""
    yield {}, 0.05
    if "double_backward" in subject.parameters:
        yield {"double_backward": "exact"}, 1e-5


def _derivative_gap(interpret: Callable[..., Tensor], model: nn.Module, x: Tensor, y: Tensor, m: Tensor) -> float:
    """Return the relative error of the map's derivative against central differences along eight random directions."""
    generator, step = torch.Generator().manual_seed(1), 1e-6
    weights = torch.randn(m.shape, generator=generator, dtype=m.dtype)
    (slope,) = torch.autograd.grad((weights * m).sum(), x)
    claimed, measured = [], []
    for _ in range(8):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        with torch.no_grad():
            ahead, behind = (interpret(model, x + s * direction, y) for s in (step, -step))
        measured.append((weights * (ahead - behind)).sum() / (2 * step))
        claimed.append((slope * direction).sum())
    a, b = torch.stack(claimed), torch.stack(measured)
    return float((a - b).norm() / b.norm())


def model_left_as_found(subject: Subject) -> None:
    """Check that modes, hooks and gradients of the model, the images and the global random state are kept."""
    model, x, y = setting(subject)
    model.train()
    before, random = x.clone(), torch.get_rng_state()

    def state() -> list[Any]:
        return [
            (m.training, len(m._forward_hooks), len(m._backward_hooks), "forward" in vars(m)) for m in model.modules()
        ]

    found = state()
    subject.prepared(model)(model, x, y)
    require(state() == found, "the mode or a hook of a module changed")
    require(all(p.requires_grad and p.grad is None for p in model.parameters()), "a weight lost or got a gradient")
    require(torch.equal(x, before), "the interpreter must not write into x")
    require(torch.equal(torch.get_rng_state(), random), "the global random state changed")


def deterministic(subject: Subject) -> None:
    """Check that two calls without a generator give the same explanation, whatever the global seed."""
    model, x, y = setting(subject)
    first = subject.prepared(model)(model, x, y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = subject.prepared(model)(model, x, y)
    require(_equal(first, second), "two calls without a generator differ")


def same_in_every_default_dtype(subject: Subject) -> None:
    """Check that the explanation of float32 images does not depend on torch's default dtype."""
    model, x, y = setting(subject)
    outside = subject.prepared(model.float())(model, x.float(), y)
    with default_dtype(torch.float64):
        inside = subject.prepared(model)(model, x.float(), y)
    require(_equal(inside, outside), "another explanation with the default dtype float64")


def same_in_inference_mode(subject: Subject) -> None:
    """Check that the explanation is the same inside `torch.inference_mode()`, and that of an object fitted inside."""
    model, x, y = setting(subject)
    interpret = subject.prepared(model)
    outside = interpret(model, x, y)
    with torch.inference_mode():
        inside = [made(model, x.clone(), y.clone()) for made in (interpret, subject.prepared(model))]
    require(all(_equal(seen, outside) for seen in inside), "another explanation inside torch.inference_mode()")


def empty_batch(subject: Subject) -> None:
    """Check that an empty batch has an empty explanation."""
    model, x, y = setting(subject)
    seen = subject.prepared(model)(model, x[:0], y[:0])
    require(len(seen) == 0, f"an empty batch gives {len(seen)} explanations")


def bad_input(subject: Subject) -> None:
    """Check that wrong classes, a chunk of 0 and a call before `fit` each raise the right error."""
    model, x, y = setting(subject)
    interpret = subject.prepared(model)
    wrong = y.clone()
    wrong[-1] = 9
    with refused(DataError, "class 9 is outside", "a class outside the model"):
        interpret(model, x, wrong)
    with refused(DataError, "int64", "classes that are not integers"):
        interpret(model, x, y.double())
    for what, words, images in (
        ("a NumPy array", "torch.Tensor", x.numpy()),
        ("of three dimensions", "float32 or float64", x[0]),
        ("whole numbers", "float32 or float64", (x * 255).to(torch.uint8)),
        ("pixels from 0 to 255", "must be in", x * 255),
    ):
        with refused(DataError, words, f"images that are {what}"):
            interpret(model, images, y)
    if "chunk" in subject.parameters:
        with refused(InputError, "chunk", "chunk=0"):
            subject.prepared(model, chunk=0)(model, x, y)
    if inspect.isclass(subject.method):
        with refused(NotFitted, "fit", "a call before fit"):
            unfitted: Any = subject.method(**subject.options)
            unfitted(model, x, y)


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (
        map_shape_and_dtype,
        batch_equals_singles,
        differentiable_as_the_card_says,
        model_left_as_found,
        deterministic,
        same_in_every_default_dtype,
        same_in_inference_mode,
        empty_batch,
        bad_input,
    )
}
