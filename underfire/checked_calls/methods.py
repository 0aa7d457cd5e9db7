"""Check and convert the arguments of attacks, interpreters, detectors and defences, for any model and images.

Any module or function becomes a `Classifier`, whose answers are read and checked on every pass. The caller's gradient
mode does not matter: an attack runs with gradients enabled, and an interpreter leaves inference mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from underfire.catalog import (
    AttackFacts,
    DefenseFacts,
    DetectorFacts,
    Facts,
    InterpreterFacts,
    TrainingFacts,
    convert,
    number,
)
from underfire.catalog.options import hints_of
from underfire.domains import domain_of
from underfire.errors import DataError, InputError, Unsupported, shown, with_article
from underfire.model import Classifier, as_classifier, model_errors, session
from underfire.records import Batch
from underfire.validate import check_goal, check_labels

# The plain function that the running interpreter evaluates as its model; a module has a session instead.
_FUNCTION: ContextVar[Any] = ContextVar("underfire_function", default=None)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)


def call_attack(method: Callable[..., Any], facts: AttackFacts, bound: inspect.BoundArguments) -> Any:
    """Call an attack with checked arguments, and return its result without a graph.

    Raises:
        DataError: images, labels or goals are wrong. InputError: a goal equals the label, and the attack aims at the
            class. ModelError: the model is wrong, or raises an error. Unsupported: the attack needs a gradient
            with respect to the input, and the model has none.
    """
    given = bound.arguments
    model = given["model"] = as_classifier(given["model"])
    with torch.inference_mode(False), torch.enable_grad(), _running(model, bound, detach=True):
        x, y, goal = given["x"], given["y"], given.get("goal")
        check_labels(x, y, goal)
        _check_interpreter(bound)
        if goal is not None and "kept" not in facts.goals:
            check_goal(y, goal)
        result = method(*bound.args, **bound.kwargs)
    return result.detach() if isinstance(result, Tensor) else result


def call_interpreter(method: Callable[..., Any], facts: InterpreterFacts, bound: inspect.BoundArguments) -> Any:
    """Call an interpreter with checked arguments; a plain function stays the model, for methods that only call it.

    Raises:
        DataError: the images are wrong. ModelError: the model is wrong, or raises an error. Unsupported: the model has
            no gradient with respect to its input, and the interpreter needs one.
    """
    given = bound.arguments
    model = given["model"]
    if isinstance(model, nn.Module) or not callable(model):
        model = given["model"] = as_classifier(model)
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(_running(model, bound, detach=False))
        return method(*bound.args, **bound.kwargs)


def call_fit(method: Callable[..., Any], _: InterpreterFacts, bound: inspect.BoundArguments) -> Any:
    """Call the fit of a class with gradients enabled, whatever the caller's gradient mode.

    Raises:
        ModelError: the model is none. DataError: the inputs that a detector learns from are not those of the model.
    """
    given = bound.arguments
    model = given["model"] = as_classifier(given["model"])
    for name in ("clean", "attacked"):
        batch = given.get(name)
        if isinstance(batch, Batch):
            model.domain.check(batch.x)
        elif (name == "clean" and name in given) or batch is not None:
            raise DataError(f"{name} must be a Batch, such as data[:64], got {with_article(type(batch).__name__)}")
    with torch.inference_mode(False), torch.enable_grad():
        return method(*bound.args, **bound.kwargs)


def call_score(method: Callable[..., Any], _: DetectorFacts, bound: inspect.BoundArguments) -> Any:
    """Call the score of a detector with a classifier and checked inputs.

    Raises:
        DataError: the inputs are wrong. ModelError: the model is wrong, or raises an error. Unsupported: the model has
            no gradient with respect to its input, and the detector needs one.
    """
    bound.arguments["model"] = as_classifier(bound.arguments["model"])
    return call_interpreter(method, InterpreterFacts(), bound)


def call_defense(method: Callable[..., Any], facts: DefenseFacts, bound: inspect.BoundArguments) -> Any:
    """Call a defence with a classifier and checked options.

    Raises:
        InputError: an option has another type. ModelError: the model is none. Unsupported: the defence does not take
            the inputs of the model.
    """
    _convert_options("defense", method, facts, bound)
    return method(*bound.args, **bound.kwargs)


def call_training(method: Callable[..., Any], facts: TrainingFacts, bound: inspect.BoundArguments) -> Any:
    """Call a method of training with a classifier and checked options, and with gradients enabled.

    Raises:
        InputError: an option has another type. ModelError: the model is none. Unsupported: the method does not take the
            inputs of the model.
    """
    _convert_options("training", method, facts, bound)
    with torch.inference_mode(False), torch.enable_grad():
        return method(*bound.args, **bound.kwargs)


def _convert_options(kind: str, method: Callable[..., Any], facts: Facts, bound: inspect.BoundArguments) -> None:
    """Make the model a classifier of the right domain, and convert the options to their types."""
    given, hints = bound.arguments, hints_of(method)
    model = given["model"] = as_classifier(given["model"])
    if model.domain.name not in facts.domains:
        taken = " or ".join(facts.domains)
        raise Unsupported(
            f"{kind} {method.__name__!r} takes inputs of {taken}, and the model takes {model.domain.name}"
        )
    for name in given:
        if name not in ("model", "data"):
            given[name] = convert(name, given[name], hints.get(name, Any))


def _check_interpreter(bound: inspect.BoundArguments) -> None:
    """Raise InputError if the interpreter that an attack is aimed at cannot be called."""
    found, parameter = bound.arguments.get("interpreter"), bound.signature.parameters.get("interpreter")
    if parameter is None or callable(found) or found is parameter.default:
        return
    if found is not None or parameter.default is parameter.empty:
        raise InputError(
            "interpreter must be a function (model, x, y) -> map, such as underfire.interpreters.grad_cam, got "
            f"{shown(found)}"
        )


@contextmanager
def _running(model: Any, bound: inspect.BoundArguments, *, detach: bool) -> Iterator[None]:
    """Check and convert the arguments in `bound`, in place, and watch the model while the block runs.

    A method that another method calls on the same model gets arguments that are checked already.
    """
    given = bound.arguments
    if not isinstance(model, Classifier):
        if _FUNCTION.get() is model:
            yield
            return
        _convert(given, domain_of(model), detach)
        token = _FUNCTION.set(model)
        try:
            yield
        finally:
            _FUNCTION.reset(token)
        return
    with session(model.module, model.domain, given["x"]) as (watched, nested):
        if nested:
            yield
            return
        _convert(given, model.domain, detach)
        watched.x = given["x"].detach()
        with model_errors(watched.x):
            yield
            watched.check_gradient(model.answer)
        watched.warn()


def _convert(given: dict[str, Any], domain: Any, detach: bool) -> None:
    """Convert `given` in place to what methods take: tensors that gradients can use, int64 classes, numbers.

    Args:
        given: the arguments by name.
        domain: the kind of input of the model.
        detach: whether the method is an attack: `x` is detached, and must lie in the box of the domain and be float32
            or float64. An interpreter also takes noisy and half-precision images.

    Raises:
        DataError: `x` is not a batch of the domain, or `y` or `goal` cannot become a tensor.
    """
    # tensors that were made in inference mode could not take part in a gradient
    for name, value in given.items():
        if isinstance(value, Tensor) and value.is_inference():
            given[name] = value.clone()
    # images
    x = given["x"]
    if not isinstance(x, Tensor):
        raise DataError(f"the images must be a torch.Tensor, got {type(x).__module__}.{type(x).__name__}")
    domain.check(x, loose=not detach)
    if detach:
        given["x"] = x = x.detach()
    # labels and goals, also as a list, a NumPy array, or one number for all
    for name in ("y", "goal"):
        value = given.get(name)
        if isinstance(value, bool) or value is None:
            continue
        if not isinstance(value, Tensor):
            try:
                value = torch.as_tensor(value, device=x.device)
            except (TypeError, ValueError, RuntimeError):
                kind = type(value).__name__
                raise DataError(f"{name} must be int64 classes [{len(x)}], got a {kind}, not a tensor") from None
            value = value.long() if value.numel() == 0 else value
        value = value.repeat(len(x)) if value.dim() == 0 else value
        given[name] = value.long() if value.dtype in _WHOLE else value
    if isinstance(given.get("eps"), str):
        given["eps"] = number(given["eps"])
