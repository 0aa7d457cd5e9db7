"""Check arguments and tensors; a failed check raises an error that states the wrong value and the valid ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import overload

import torch
from torch import Generator, Tensor

from underfire.errors import DataError, InputError, ModelError, Unsupported, shown


def at_least_one(**numbers: int) -> None:
    """Raise InputError unless every number is at least 1; the message names the argument.

    >>> at_least_one(steps=10, restarts=1)
    """
    at_least(1, **numbers)


def at_least(low: float, **numbers: float) -> None:
    """Raise InputError unless every number is at least `low`; the message names the argument.

    >>> at_least(0, decay=0.9)
    """
    for name, number in numbers.items():
        if not number >= low:
            raise InputError(f"{name} must be at least {low:g}, got {number}")


def check_number(**values: object) -> None:
    """Raise InputError unless every value is a number or a tensor of numbers; the message names the argument.

    >>> check_number(eps=8 / 255)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not (isinstance(value, Tensor) or hasattr(value, "__float__")):
            raise InputError(f"{name} must be a number such as 0.03 or 8 / 255, got {value!r}")


def check_choice(choices: Collection[str], **values: str) -> None:
    """Raise Unsupported unless every value is one of the choices; the message names the argument.

    >>> check_choice(("adam", "newton"), solver="adam")
    """
    for name, value in values.items():
        if value not in choices:
            raise Unsupported(f"{name} {value!r} is unknown; choices: {', '.join(choices)}")


def check_device(name: str) -> str:
    """Return `name`, or raise Unsupported unless torch can compute on the device of this name."""
    try:
        torch.zeros(1, device=name).item()
    except Exception:  # noqa: BLE001 - torch and its plug-ins raise errors of many types, from ImportError to AssertionError
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise Unsupported(f"device {shown(name)} is not available here; use one of: {', '.join(here)}") from None
    return name


def check_labels(x: Tensor, y: Tensor, goal: Tensor | None = None) -> None:
    """Raise an error unless `y` and `goal` hold one class for each sample of `x`.

    Raises:
        DataError: the classes are not int64 `[B]`, or one is negative.
    """
    for name, classes in (("labels", y), ("goal", goal)):
        if classes is None:
            continue
        if not isinstance(classes, Tensor):
            raise DataError(f"{name} must be int64 [{len(x)}], got a {type(classes).__name__}")
        if classes.shape != (len(x),) or classes.dtype != torch.int64:
            raise DataError(f"{name} must be int64 [{len(x)}], got {classes.dtype} {tuple(classes.shape)}")
        if len(x) and int(classes.min()) < 0:
            raise DataError(f"{name} must be >= 0, got {int(classes.min())}")


def check_goal(y: Tensor, goal: Tensor) -> None:
    """Raise InputError if a goal equals the label of its sample, which an attack on the class cannot reach."""
    same = int((goal == y).sum())
    if same:
        raise InputError(f"goal equals the label for {same} of {len(y)} samples; choose other classes")


def check_classes(logits: Tensor, y: Tensor, goal: Tensor | None = None) -> None:
    """Raise DataError unless every label and goal is one of the classes of `logits` `[B, K]`."""
    top = max((int(classes.max()) for classes in (y, goal) if classes is not None and len(classes)), default=0)
    if top >= logits.shape[1]:
        raise DataError(f"label {top} is outside the model's {logits.shape[1]} classes (0 to {logits.shape[1] - 1})")


def default_generator(generator: Generator | None, device: torch.device | str = "cpu") -> Generator:
    """Return `generator`, or if it is None a new one on `device` with seed 0, so that the default is deterministic."""
    return generator if generator is not None else Generator(device).manual_seed(0)


# By what is checked, whether a value was NaN or infinite inside the running block of `checked_at_end`.
_PENDING: ContextVar[dict[str, Tensor] | None] = ContextVar("underfire_pending", default=None)


@contextmanager
def checked_at_end() -> Iterator[None]:
    """Let `require_finite` check when the block ends, so that no step of a loop inside it waits for the device.

    Raises:
        ModelError: at the end of the block, a value was NaN or infinite.
    """
    pending: dict[str, Tensor] = {}
    token = _PENDING.set(pending)
    try:
        yield
    finally:
        _PENDING.reset(token)
    for what, wrong in pending.items():
        if bool(wrong):
            raise ModelError(f"{what} became NaN or infinite in a step")


def deferred() -> bool:
    """Return whether a block of `checked_at_end` is running, in which no check reads a number back."""
    return _PENDING.get() is not None


def require_finite(values: Tensor, what: str = "the model's gradient") -> Tensor:
    """Return `values` `[B, ...]` unchanged, or raise ModelError if a value is NaN or infinite.

    Raises:
        ModelError: some samples have NaN or infinite values; the message begins with `what` and counts the samples.
    """
    finite = torch.isfinite(values.detach().sum())  # cheap: a finite sum has finite terms only
    if (pending := _PENDING.get()) is not None:
        pending[what] = ~finite | pending[what] if what in pending else ~finite
    elif not bool(finite):
        for word, wrong in (("NaN", torch.isnan), ("infinite", torch.isinf)):
            if bad := int(wrong(values).reshape(len(values), -1).any(1).sum()):
                raise ModelError(f"{what} is {word} for {bad} of {len(values)} images")
    return values


@overload
def per_sample(values: float, like: Tensor) -> float: ...
@overload
def per_sample(values: Tensor, like: Tensor) -> Tensor: ...
def per_sample(values: float | Tensor, like: Tensor) -> float | Tensor:
    """Reshape one number per sample `[B]` to `[B, 1, ...]`, so that it broadcasts against `like` `[B, ...]`.

    A number, or a tensor without dimensions, is returned unchanged.
    """
    if not isinstance(values, Tensor) or values.dim() == 0:
        return values
    return values.reshape(-1, *[1] * (like.dim() - 1))
