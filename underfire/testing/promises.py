"""What the contracts of all kinds share: requiring a fact or an error, and checking promises by name."""

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
        subject: what every promise is called with.
        promises: the promises by name.
        chosen: the names of some of them; None is all.

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


def require(condition: bool | Tensor, message: str) -> None:
    """Raise AssertionError unless the condition holds, for a tensor in every entry."""
    if not bool(torch.as_tensor(condition).all()):
        raise AssertionError(message)


@contextmanager
def refused(error: type[Exception], words: str, what: str) -> Iterator[None]:
    """Require that the block raises an error whose message holds some words."""
    try:
        yield
    except error as found:
        require(words in str(found), f"the error for {what} must say {words!r}, got {str(found)!r}")
    except Exception as other:
        raise AssertionError(f"{what} must raise {error.__name__}, got {type(other).__name__}: {other}") from other
    else:
        raise AssertionError(f"{what} must raise {error.__name__}")
