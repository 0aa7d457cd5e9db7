"""Check and convert the arguments of measures: lists and arrays become tensors, and anything else is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from underfire.catalog.options import check_options, hints_of
from underfire.errors import InputError, with_article
from underfire.model import model_errors
from underfire.validate import check_labels

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)


def call_measure(method: Callable[..., Any], _: Any, bound: inspect.BoundArguments) -> Any:
    """Call a measure with checked arguments.

    Raises:
        InputError: an argument has the wrong type, or the shapes of tensors do not fit together. DataError: the classes
            are not those of the images. ModelError: the model raises an error.
    """
    given = bound.arguments
    tensors, functions, options = _roles(method)
    for name in functions & given.keys():
        if not callable(given[name]):
            raise InputError(f"{name} must be a module or a function, got {with_article(type(given[name]).__name__)}")
    device = next((value.device for value in given.values() if isinstance(value, Tensor)), None)
    for name, optional in tensors.items():
        value = given.get(name)
        if name in given and not (optional and value is None):
            given[name] = as_tensor(name, value, device)
    chosen = {name: value for name, value in given.items() if name in options}
    given |= check_options(method.__name__, options, hints_of(method), chosen, elsewhere=list(options))
    x, y = given.get("x"), given.get("y")
    if functions and x is not None:
        if y is not None:
            check_labels(x, y)
        with model_errors(x):
            return method(*bound.args, **bound.kwargs)
    try:
        return method(*bound.args, **bound.kwargs)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        shapes = ", ".join(f"{name} {list(given[name].shape)}" for name in tensors if given.get(name) is not None)
        reason = str(error).splitlines()[0]
        raise InputError(f"{method.__name__} cannot be computed from {shapes}: {reason}") from None


def as_tensor(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """Return a tensor unchanged, and a list, a tuple or an array as a tensor, whose whole numbers are int64.

    Args:
        name: the name of the argument, for the message.
        value: the values, one for each sample or more.
        device: the device of the tensor.

    Raises:
        InputError: the value is none of these, or not rectangular.
    """
    kind = with_article(type(value).__name__)
    if not hasattr(value, "__array__") and not isinstance(value, (list, tuple)):
        raise InputError(f"{name} must be a tensor, an array or a list with a value for each sample, got {kind}")
    try:
        if isinstance(value, Tensor):
            found = value
        elif isinstance(value, (list, tuple)) and any(hasattr(part, "__array__") for part in value):
            found = torch.stack([torch.as_tensor(part) for part in value]).to(device)
        else:
            found = torch.tensor(np.asarray(value) if hasattr(value, "__array__") else value, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{name} must hold numbers in rows of one length, got {kind} that does not") from None
    if found.dim() == 0:
        raise InputError(f"{name} must have a value for each sample, got the one number {value}")
    return found.long() if found.dtype in _WHOLE and found is not value else found


@cache
def _roles(method: Callable[..., Any]) -> tuple[dict[str, bool], set[str], dict[str, inspect.Parameter]]:
    """Return the arguments of a measure that are tensors, each with whether it may be None, functions, and options."""
    hints, tensors, functions = hints_of(method), dict[str, bool](), set[str]()
    parameters = inspect.signature(method).parameters
    for name in parameters:
        parts = get_args(hints[name]) if type(None) in get_args(hints[name]) else (hints[name],)
        if Tensor in parts:
            tensors[name] = type(None) in parts
        elif any(get_origin(part) is Callable or part is nn.Module for part in parts):
            functions.add(name)
    options = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name not in tensors}
    return tensors, functions, options
