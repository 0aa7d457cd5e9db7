"""The contract of a detector: what every detector of the catalogue promises, and a plugin's should."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from underfire.attacks.pgd import pgd
from underfire.attacks.square import square
from underfire.catalog import Card, DetectorFacts, facts_of
from underfire.detectors import Detector, Guard
from underfire.errors import DataError, NotFitted, Unsupported
from underfire.hooks import frozen
from underfire.model import Classifier
from underfire.records import Batch
from underfire.testing.models import SHAPES, toy_classifier
from underfire.testing.promises import check_promises, refused, require

_FITTED, _ATTACKED, _BATCH, _DTYPE = 24, 8, 5, torch.float64


def check_detector(
    detector: Card[DetectorFacts] | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the detector breaks one of the promises of its family; the message names the promise.

    The detector is fitted to random images of 9 x 12 pixels and a small convolutional network of four classes.

    Args:
        detector: the class, or its card.
        options: options that the detector requires, and settings that make it quick.
        promises: names of some of `PROMISES`; None is all of them.
    """
    made = detector.function if isinstance(detector, Card) else detector
    subject = Subject(made, facts_of(detector, DetectorFacts()), options or {})
    check_promises(getattr(made, "__name__", repr(made)), subject, PROMISES, promises)


@dataclass(frozen=True)
class Subject:
    """A detector with the options that it is checked with.

    Attributes:
        made: the class.
        facts: what its card says.
        options: passed to the class.
    """

    made: Callable[..., Any]
    facts: DetectorFacts
    options: Mapping[str, Any] = field(default_factory=dict)

    def new(self) -> Any:
        """Return a new detector that is not fitted."""
        return self.made(**self.options)

    def fitted(self, model: Classifier) -> Any:
        """Return a new detector that is fitted to `known`, and to noisy images if it is supervised."""
        attacked = known(model, 1, right=False).take(torch.arange(_ATTACKED)) if self.facts.supervised else None
        detector = self.new()
        require(detector.fit(model, known(model), attacked) is detector, "fit must return the detector")
        return detector


def known(model: Classifier, seed: int = 0, *, right: bool = True) -> Batch:
    """Return the random images that detectors are fitted to, with labels that the model predicts, or with others."""
    x = _images(_FITTED, seed)
    with torch.no_grad(), frozen(model):
        y = model(x).argmax(1)
    return Batch(x, y if right else (y + 1) % 4, tuple(map(str, range(_FITTED))))


def setting() -> tuple[Classifier, Tensor]:
    """Return a small network that predicts each of its four classes, and images that no detector was fitted to."""
    model = toy_classifier(dtype=_DTYPE)
    head = model.module[-1]  # type: ignore[index]
    with torch.no_grad():
        logits = model(_images(_FITTED))
        scale = logits.std(0)
        head.weight.div_(scale[:, None])
        head.bias.sub_(logits.mean(0)).div_(scale)
    model.module.insert(-1, nn.Dropout(0.25).eval())  # type: ignore[operator]
    return model, _images(_BATCH, 7)


def _images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPES["image"], generator=torch.Generator().manual_seed(seed), dtype=_DTYPE)


def shape_and_dtype(subject: Subject) -> None:
    """Check that scores are `[B]`, finite, of the dtype of `x`, and without a graph where `x` needs no gradient."""
    model, x = setting()
    score = subject.fitted(model).score(model, x)
    require(isinstance(score, Tensor) and score.shape == (_BATCH,), f"a score must be [{_BATCH}], got {score!r:.80}")
    require(score.dtype == x.dtype, f"a score must be {x.dtype}, got {score.dtype}")
    require(torch.isfinite(score), "a score must be finite")
    require(not score.requires_grad, "a score must not carry a graph where x requires no gradient")


def fit_comes_first(subject: Subject) -> None:
    """Check that `score` before `fit` raises NotFitted, and `save` too where there is one."""
    model, x = setting()
    with refused(NotFitted, "fit", "a score before fit"):
        subject.new().score(model, x)
    if hasattr(subject.made, "save"):
        with refused(NotFitted, "fit", "a save before fit"):
            subject.new().save("never-written")


def batch_equals_singles(subject: Subject) -> None:
    """Check that an input has the same score alone as in a batch, and that an empty batch has none."""
    model, x = setting()
    detector = subject.fitted(model)
    singles = torch.cat([detector.score(model, x[i : i + 1]) for i in range(_BATCH)])
    require(torch.allclose(detector.score(model, x), singles, atol=1e-8), "a score differs in a batch")
    require(detector.score(model, x[:0]).shape == (0,), "an empty batch must have no score")


def differentiable_as_the_card_says(subject: Subject) -> None:
    """Check that a score carries a graph exactly if its card says so, and that a step against its gradient lowers it.

    The gradient need not be exact, since operations without one may bring that of another function (BPDA).
    """
    model, x = setting()
    detector, said = subject.fitted(model), subject.facts.differentiable
    x.requires_grad_()
    score = detector.score(model, x)
    require(score.requires_grad == said, f"the card says differentiable={said}, the score says {score.requires_grad}")
    if said:
        (slope,) = torch.autograd.grad(score.sum(), x)
        require(torch.isfinite(slope), "the gradient of the score must be finite")
        require((slope != 0).flatten(1).any(1), "the gradient of a score is zero")
        with torch.no_grad():
            steps = [(x - size * slope.sign()).clamp(0, 1) for size in (1e-4, 1e-3, 1e-2, 3e-2)]
            lowest = torch.stack([detector.score(model, z) for z in steps]).amin(0)
        require(lowest < score, "no step against the gradient lowers a score")


def attacked_as_a_guard(subject: Subject) -> None:
    """Check that PGD with a goal attacks a guard of a detector that extends `Detector`, and is accepted once or more.

    For a score without a gradient, the guard must refuse PGD in one line, and an attack by queries must run.
    """
    model, x = setting()
    detector = subject.fitted(model)
    if not isinstance(detector, Detector):
        return
    scores = detector.score(model, x)
    guard = Guard(model, detector, float(scores.max()), scale=float(scores.std()))
    y = model.predict(x).argmax(1)
    goal = guard.likeliest_wrong(x, y)
    if not detector.differentiable:
        with refused(Unsupported, "gradient", "PGD on a guard of a score without a gradient"):
            pgd(guard, x, y, goal=goal, steps=1)
        x, y, goal = x[:1], y[:1], goal[:1]
        require(square(guard, x, y, goal=goal, queries=2).shape == x.shape, "Square changes the shape of an image")
        return
    require(guard.decide(x) != goal, "the guard returns the goal before the attack")
    x_adv = pgd(guard, x, y, goal=goal, eps=0.3, steps=5)
    require((guard.decide(x_adv) == goal).any(), "the guard accepts no image of PGD as its goal")


def model_left_as_found(subject: Subject) -> None:
    """Check that modes and gradients of the model, the inputs and the global random state are kept."""
    model, x = setting()
    model.train()
    before, random = x.clone(), torch.get_rng_state()
    subject.fitted(model).score(model, x)
    require(all(m.training for m in model.modules()), "the mode of a module changed")
    require(all(p.requires_grad and p.grad is None for p in model.parameters()), "a weight lost or got a gradient")
    require(torch.equal(x, before), "the detector must not write into x")
    require(torch.equal(torch.get_rng_state(), random), "the global random state changed")


def deterministic(subject: Subject) -> None:
    """Check that two fits give the same scores, whatever the global seed and the mode of inference."""
    model, x = setting()
    first = subject.fitted(model).score(model, x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        require(torch.equal(subject.fitted(model).score(model, x), first), "two fits differ")
    with torch.inference_mode():
        inside = subject.fitted(model).score(model, x.clone())
    require(torch.allclose(inside, first, atol=1e-12), "another score inside torch.inference_mode()")


def saved_and_loaded(subject: Subject) -> None:
    """Check that a detector that can be saved scores the same after it is loaded from its safetensors file."""
    if not hasattr(subject.made, "save"):
        return
    model, x = setting()
    detector = subject.fitted(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.safetensors"
        detector.save(path)
        with safe_open(path, framework="pt") as file:
            require(bool(file.metadata()), "the file must say in its metadata which detector it holds")
        loaded = subject.made.load(path)  # type: ignore[attr-defined]
    require(torch.equal(loaded.score(model, x), detector.score(model, x)), "another score after loading")


def bad_input(subject: Subject) -> None:
    """Check that wrong inputs are refused by `fit` and by `score`."""
    model, x = setting()
    detector = subject.fitted(model)
    wrong: tuple[tuple[str, str, Any], ...] = (
        ("a NumPy array", "torch.Tensor", x.numpy()),
        ("of three dimensions", "float32 or float64", x[0]),
        ("pixels from 0 to 255", "must be in", x * 255),
    )
    for what, words, images in wrong:
        with refused(DataError, words, f"images that are {what}"):
            detector.score(model, images)
    batch = known(model)
    with refused(DataError, "must be in", "a fit to pixels from 0 to 255"):
        subject.new().fit(model, Batch(255 * batch.x, batch.y, batch.ids))


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (
        shape_and_dtype,
        fit_comes_first,
        batch_equals_singles,
        differentiable_as_the_card_says,
        attacked_as_a_guard,
        model_left_as_found,
        deterministic,
        saved_and_loaded,
        bad_input,
    )
}
