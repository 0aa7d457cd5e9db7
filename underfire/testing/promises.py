"""Shared parts of all contracts: require a condition or an error, and check promises by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from underfire.errors import InputError, nearest

Subject = TypeVar("Subject")


def check_promises(
    name: str,
    subject: Subject,
    promises: Mapping[str, Callable[[Subject], None]],
    chosen: Iterable[str] | None,
) -> None:
    """Raise AssertionError if a method breaks a promise; the message names the method and the promise.

    Args:
        name: the name of the method.
        subject: the method with its options, with which every promise is called.
        promises: the promises by name.
        chosen: the names of the promises to check; None is all.

    Raises:
        InputError: there is no promise of that name.
    """
    for promise in promises if chosen is None else chosen:
        if promise not in promises:
            raise InputError(f"unknown promise {promise!r}; {nearest(promise, promises)}")
        try:
            promises[promise](subject)
        except Exception as broken:
            what = str(broken) if isinstance(broken, AssertionError) else f"{type(broken).__name__}: {broken}"
            raise AssertionError(f"{name} breaks the promise {promise!r}: {what}") from broken


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype inside the block."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def require(condition: bool | Tensor, message: str) -> None:
    """Raise AssertionError unless the condition holds; a tensor must be true in every entry."""
    if not bool(torch.as_tensor(condition).all()):
        raise AssertionError(message)


@contextmanager
def refused(error: type[Exception], words: str, what: str) -> Iterator[None]:
    """Require that the block raises `error` with `words` in its message; `what` names the cause for the reader."""
    try:
        yield
    except error as found:
        require(words in str(found), f"the error for {what} must say {words!r}, got {str(found)!r}")
    except Exception as other:
        raise AssertionError(f"{what} must raise {error.__name__}, got {type(other).__name__}: {other}") from other
    else:
        raise AssertionError(f"{what} must raise {error.__name__}")
