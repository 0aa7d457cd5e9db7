"""Let the calls of a method pass through a function that checks and converts its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import Any

from torch import Tensor

from underfire.catalog.facts import Facts

#: By kind, and under `fit` and `score` for these methods of a class, a function `(method, facts, arguments) -> result`
#: that checks and converts the arguments of a method, and then calls it. `underfire.checked_calls`, which the first
#: call of a method imports, fills it.
callers: dict[str, Callable[[Callable[..., Any], Any, inspect.BoundArguments], Any]] = {}


def with_checks(kind: str, method: Any, facts: Facts) -> Any:
    """Return the method with its calls made by `callers[kind]`; of a class, its methods that get a model."""
    if inspect.isclass(method):
        for name, caller in (("__call__", kind), ("fit", "fit"), ("score", "score")):
            found = next((vars(base)[name] for base in method.__mro__ if name in vars(base)), None)
            if found is not None:
                setattr(method, name, with_checks(caller, found, facts))
        return method
    if kind not in ("attack", "interpreter", "fit", "score", "measure", "defense", "training"):
        return method
    signature = inspect.signature(method)
    # a measure may be a term of a loss: a call with tensors alone has nothing to check, unless it fails
    named = [p.annotation for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    plain = kind == "measure" and {str(hint) for hint in named} <= {"Tensor", "Tensor | None"}

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if kind not in callers:  # no method of underfire is imported yet, only one of the caller's own
            import_module("underfire.checked_calls")
        if plain and not kwargs and all(isinstance(value, Tensor) and value.dim() for value in args):
            with suppress(RuntimeError, IndexError, TypeError):
                return method(*args)
        return callers[kind](method, facts, signature.bind(*args, **kwargs))

    return checked
