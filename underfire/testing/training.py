"""The contract of a training: what every method of training of the catalogue promises, and a plugin's should."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underfire.catalog import Card
from underfire.errors import DataError, InputError, ModelError
from underfire.model import Classifier
from underfire.testing.promises import check_promises, refused, require
from underfire.training.plan import Plan

_SIDE = 6


def check_training(
    training: Card[Any] | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the method breaks one of the promises of its family; the message names the promise.

    The method trains a small convolutional network to tell dark images from bright ones.

    Args:
        training: the function, or its card.
        options: options that the method requires, and settings that make it quick.
        plan: fields of the `Plan` with which it learns the task, if the usual ones do not suit it.
        promises: names of some of `PROMISES`; None is all of them.
    """
    function = training.function if isinstance(training, Card) else training
    subject = Subject(function, options or {}, plan or {})
    check_promises(getattr(function, "__name__", repr(function)), subject, PROMISES, promises)


class Killed(Exception):
    """Stand for the end of the process in the middle of a training."""


@dataclass(frozen=True)
class Subject:
    """A method with the options that it is checked with.

    Attributes:
        function: the method.
        options: passed to the function.
        plan: fields of the plan.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: Any, data: Any, generator: torch.Generator | None = None, **plan: Any) -> Any:
        """Train, with a plan of these fields."""
        usual = {"epochs": 2, "batch_size": 8, "rate": 0.05, "weight_decay": 0.0}
        return self.function(
            model, data, **self.options, plan=Plan(**{**usual, **self.plan, **plan}), generator=generator
        )


def toy_network() -> Classifier:
    """Return an untrained network with batch norm and dropout, for grey images of 6 x 6 pixels and three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )
    return Classifier(body.eval(), mean=0.5, std=0.25, labels=("dark", "bright", "other"))


def toy_data() -> tuple[Tensor, Tensor]:
    """Return 24 images, half of them dark and half bright, and their labels."""
    noise = torch.rand(24, 1, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    y = torch.arange(24) % 2
    return 0.5 * noise + 0.4 * y[:, None, None, None], y


def learns(subject: Subject) -> None:
    """Check that the task is learned, and that the result is a classifier like the one that was given."""
    model, (x, y) = toy_network(), toy_data()
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    made = subject(model, (x, y), epochs=subject.plan.get("epochs", 12))
    require(isinstance(made, Classifier), f"the result must be a Classifier, got {type(made).__name__}")
    kept = made.labels == model.labels and made.domain is model.domain and bool((made.mean == model.mean).all())
    require(kept, "class names, domain and normalisation must be kept")
    right = (made.predict(x).argmax(1) == y).float().mean()
    require(right > 0.9, f"the accuracy on the training images is {right:.2f}")
    require(not any(m.training for m in made.modules()), "the result must be in evaluation mode")
    same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    require(same, "the model that was given must stay as it is")
    untouched = all(p.grad is None and p.requires_grad for p in (*model.parameters(), *made.parameters()))
    require(untouched, "no weight may keep a gradient, and all must be trainable as before")
    require(torch.equal(random, torch.get_rng_state()), "the global random state changed")


def resumes(subject: Subject) -> None:
    """Check that a killed training continues to the same weights, which depend on the generator alone."""
    data = toy_data()

    def kill(done: int, _: int) -> None:
        if done == 4:
            raise Killed

    whole = subject(toy_network(), data)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "training.safetensors")
        with contextlib.suppress(Killed):
            subject(toy_network(), data, checkpoint=file, every=3, progress=kill)
        resumed = subject(toy_network(), data, checkpoint=file, every=3)
        wrong = subject.function.__name__
        with refused(InputError, "checkpoint", f"a checkpoint of {wrong} with another rate"):
            subject(toy_network(), data, checkpoint=file, rate=0.03)
    require(_same(whole, resumed), "a resumed training must reach the same weights, bit for bit")
    other = subject(toy_network(), data, torch.Generator().manual_seed(5))
    require(not _same(whole, other), "another generator must give other weights")


def bad_input(subject: Subject) -> None:
    """Check that data of one class, labels out of range, and a model without weights are refused in one line."""
    x, y = toy_data()
    with refused(DataError, "only class 0", "data of one class"):
        subject(toy_network(), (x, 0 * y))
    with refused(DataError, "label 4", "a label that the model does not have"):
        subject(toy_network(), (x, 4 * y))
    with refused(ModelError, "no weights", "a function"):
        subject(Classifier(nn.Flatten()), (x, y))
    with refused(InputError, "model", "a model that is a number"):
        subject(3, (x, y))
    if "eps" in inspect.signature(subject.function).parameters:
        with refused(InputError, "eps must be above 0", "an eps of 0"):
            subject.function(toy_network(), (x, y), **{**subject.options, "eps": 0.0})


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Return whether all weights and statistics are bit-identical."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {f.__name__: f for f in (learns, resumes, bad_input)}
