"""The contract of a measure: what every measure of the catalogue promises, and a plugin's measure should."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from underfire.catalog import Card, MeasureFacts, facts_of
from underfire.testing.promises import check_promises, require

#: The arguments that an audit binds by name.
VOCABULARY = ("model", "interpreter", "x", "x_adv", "y", "goal", "logits", "logits_adv", "m", "n", "mask")
BATCH = 5
# Largest relative error of a measure that calls a model: narrow float types round the images.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


def check_measure(
    measure: Card[MeasureFacts] | Callable[..., Tensor | float],
    *,
    arguments: Mapping[str, Any] | None = None,
    promises: Iterable[str] | None = None,
) -> None:
    """Raise AssertionError if the measure breaks one of the promises of its family; the message names the promise.

    Args:
        measure: the function, or its card.
        arguments: values for the arguments that are not in `VOCABULARY`, by name, each for a batch of five.
        promises: names of some of `PROMISES`; None is all of them.
    """
    function = measure.function if isinstance(measure, Card) else measure
    default = MeasureFacts(higher_is_better=True)
    facts = facts_of(measure, default)
    require(facts is not default, f"{function.__name__} has no card of kind 'measure'")
    subject = Subject(function, facts, arguments or {})
    check_promises(function.__name__, subject, PROMISES, promises)


class Network(nn.Module):
    """A small smooth network with random weights, which computes in float64 for any dtype of its input."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 4)).double()
        draw = torch.Generator().manual_seed(seed)
        for parameter in self.body.parameters():
            nn.init.normal_(parameter, 0.0, 0.3, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of four classes."""
        return self.body(x.double())


def gradient_input(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return gradient times input as a map, in the float type of `x`."""
    with torch.enable_grad():
        point = x.double().detach().requires_grad_(True)
        (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    return (g * x).sum(1, keepdim=True).to(x.dtype)


def example(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Return a batch of five for every argument of `VOCABULARY`, by name; the images are 4 x 4."""
    draw = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:  # multiples of 1/8 are exact in every float type
        return torch.randint(0, 9, shape, generator=draw).to(dtype) / 8

    mask = torch.zeros(BATCH, 1, 8, 8, dtype=torch.bool)
    mask[..., 1:5, 2:7] = True
    return {
        "model": Network(0),
        "interpreter": gradient_input,
        "x": rand(BATCH, 3, 4, 4),
        "x_adv": rand(BATCH, 3, 4, 4),
        "y": torch.tensor([0, 1, 2, 3, 0]),
        "goal": torch.tensor([1, 2, 3, 0, 1]),
        "logits": rand(BATCH, 4) * 8,
        "logits_adv": rand(BATCH, 4) * 8,
        "m": rand(BATCH, 1, 4, 4),
        "n": rand(BATCH, 1, 8, 8),
        "mask": mask,
    }


@dataclass(frozen=True)
class Subject:
    """A measure with the arguments that it is checked with.

    Attributes:
        function: the measure.
        facts: what its card says.
        arguments: values for the arguments that are not in `VOCABULARY`, by name.
    """

    function: Callable[..., Tensor | float]
    facts: MeasureFacts
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def required(self) -> list[str]:
        """Return the names of the arguments that have no default."""
        return [p.name for p in inspect.signature(self.function).parameters.values() if p.default is p.empty]

    def given(self, dtype: torch.dtype = torch.float64) -> list[Any]:
        """Return one value for each required argument; tensors of floats have the type `dtype`."""
        known = {**example(dtype), **self.arguments}
        require(known.keys() >= set(self.required()), f"give arguments for {set(self.required()) - known.keys()}")
        values = [known[name] for name in self.required()]
        return [v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in values]

    def __call__(self, values: Iterable[Any]) -> Tensor | float:
        """Call the measure with one value for each required argument."""
        return self.function(*values)


def _alike(found: Tensor | float, wanted: Tensor | float, relative: float = 1e-6) -> bool:
    a, b = (torch.as_tensor(v).double() for v in (found, wanted))
    return a.shape == b.shape and torch.allclose(a, b, rtol=relative, atol=relative / 10, equal_nan=True)


def documented(subject: Subject) -> None:
    """Check that the docstring begins with a sentence, and that a measure with a table needs only what an audit has."""
    summary = (inspect.getdoc(subject.function) or "").split("\n", 1)[0]
    require(summary.endswith("."), f"the docstring must begin with a sentence, got {summary!r}")
    if subject.facts.table:
        unknown = set(subject.required()) - set(VOCABULARY)
        require(not unknown, f"table={subject.facts.table!r}, and an audit has no {', '.join(sorted(unknown))}")
        require(not subject.facts.whole, f"table={subject.facts.table!r}, and it is one number for a whole set")


def one_value_each(subject: Subject) -> None:
    """Check that the result is a float, or one value `[B]` per sample: bool, or float64 for float64 input."""
    found = subject(subject.given())
    if not isinstance(found, Tensor):
        require(isinstance(found, float), f"the result must be a tensor or a float, got {type(found).__name__}")
        return
    require(found.shape == (BATCH,), f"the result must be [{BATCH}], got {tuple(found.shape)}")
    require(found.dtype in (torch.bool, torch.float64), f"the result must be bool or float64, got {found.dtype}")


def batch_equals_singles(subject: Subject) -> None:
    """Check that a sample's value does not depend on the others; a float must be their mean, unless `whole`."""
    if subject.facts.whole:
        return
    given = subject.given()
    batch = subject(given)
    singles = [subject([v[i : i + 1] if isinstance(v, Tensor) else v for v in given]) for i in range(BATCH)]
    if isinstance(batch, Tensor):
        alone: Tensor | float = torch.cat([torch.as_tensor(value) for value in singles])
    else:
        alone = math.fsum(float(value) for value in singles) / BATCH
    require(_alike(alone, batch), f"the batch gives {batch}, its samples alone {alone}")


def any_precision(subject: Subject) -> None:
    """Check that narrow float types give the same value as float64, but as a float32."""
    if subject.facts.timed:
        return
    wide = subject(subject.given())
    calls_model = "model" in subject.required()
    for dtype, tolerance in _TOLERANCE.items():
        narrow = subject(subject.given(dtype))
        if isinstance(narrow, Tensor) and narrow.dtype != torch.bool:
            require(narrow.dtype == torch.float32, f"{dtype} must give float32, got {narrow.dtype}")
        relative = tolerance if calls_model else 1e-5
        require(_alike(narrow, wide, relative), f"{dtype} gives {narrow}, float64 {wide}")


def inside_limits(subject: Subject) -> None:
    """Check that values stay inside the limits of the card."""
    if subject.facts.limits is not None:
        low, high = subject.facts.limits
        found = torch.as_tensor(subject(subject.given())).double()
        require((found >= low) & (found <= high), f"a value leaves [{low:g}, {high:g}]: {found.tolist()}")


def arguments_left_as_found(subject: Subject) -> None:
    """Check that tensors, weights and modes of modules and the global random state are kept."""
    given = subject.given()
    modules = [value for value in given if isinstance(value, nn.Module)]
    tensors = [v for v in given if isinstance(v, Tensor)] + [t for m in modules for t in m.state_dict().values()]
    before, state = [t.clone() for t in tensors], torch.get_rng_state()
    modes = [module.training for value in modules for module in value.modules()]
    subject(given)
    require(all(map(torch.equal, tensors, before)), "an argument or a weight changed")
    require([m.training for value in modules for m in value.modules()] == modes, "the mode of a module changed")
    require(torch.equal(torch.get_rng_state(), state), "the global random state changed")


#: The promises by name, in the order in which they are checked.
PROMISES: dict[str, Callable[[Subject], None]] = {
    promise.__name__: promise
    for promise in (
        documented,
        one_value_each,
        batch_equals_singles,
        any_precision,
        inside_limits,
        arguments_left_as_found,
    )
}
