"""Sessions: while a method uses a model, a session watches the model's gradient and its answers.

A session also keeps other threads from the model, because a method changes the model's mode while it runs.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from underfire.domains import Domain
from underfire.errors import ModelError, UnderfireError, Unsupported

NO_GRADIENT = "the model has no gradient with respect to its input; use a black-box method, such as square or rise"
_MARK = "_underfire_raised_by_the_model"
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_CURRENT: ContextVar[Session | None] = ContextVar("underfire_session", default=None)
_MEASURED: ContextVar[bool] = ContextVar("underfire_measured", default=False)


@dataclass
class Session:
    """The facts known about a model during one call of a method.

    Attributes:
        module: the module inside the classifier.
        domain: the kind of input.
        x: the inputs of the call.
        gradient: None until a gradient has reached the input of the module; then whether one was not zero.
        finite: whether all answers that the method judged were finite, a bool tensor; None before the first.
    """

    module: nn.Module
    domain: Domain
    x: Tensor
    gradient: bool | None = None
    finite: Tensor | None = None

    def watch(self, point: Tensor) -> None:
        """Record whether the gradient at `point`, the input of the module, is zero, unless one was recorded already."""
        if self.gradient is None:
            point.register_hook(self._look)

    def _look(self, gradient: Tensor | None) -> None:
        if gradient is None:  # from a node that has no back-propagation, such as a quantised layer
            self.gradient = bool(self.gradient)
        elif gradient.numel():
            self.gradient = bool(self.gradient) or bool(gradient.any())

    def check_gradient(self, answer: Callable[[Tensor], Tensor]) -> None:
        """Raise Unsupported if the only gradient so far was zero for all inputs, and the logits have none either.

        A loss can be flat where the logits are not, for example if a confident model saturates its cross-entropy. So a
        random weighted sum of the logits is differentiated at the inputs, and at random inputs in the box.

        Args:
            answer: maps inputs to logits.
        """
        if self.gradient is not False:
            return
        generator = torch.Generator(self.x.device).manual_seed(0)
        low, high = self.domain.box(self.x)
        noise = torch.rand(self.x.shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        for point in (self.x, low + (high - low) * noise):
            with torch.enable_grad(), unwatched():
                z = point.clone().requires_grad_(True)
                logits = answer(z)
                weights = torch.randn(logits.shape, generator=generator, dtype=z.dtype, device=z.device)
                slope = torch.autograd.grad((weights * logits).sum(), z, materialize_grads=True)[0]
            if bool(slope.any()):
                self.gradient = True
                return
        raise Unsupported(NO_GRADIENT)

    def warn(self) -> None:
        """Warn if an answer of the model was NaN or infinite."""
        if self.finite is not None and not bool(self.finite):
            text = "some answers of the model were NaN or infinite; such an image is never a success of an attack"
            warnings.warn(text, RuntimeWarning, stacklevel=6)


@contextmanager
def session(module: nn.Module, domain: Domain, x: Tensor) -> Iterator[tuple[Session, bool]]:
    """Watch the use of a module inside the block; yield the session, and whether a session began outside the block.

    A call during back-propagation counts as inside: a method computes a part of its result again there, perhaps in a
    thread of torch while the session's own thread waits.
    """
    known, new = current(module), Session(module, domain, x)
    if known is not None or torch._C._current_graph_task_id() != -1:
        yield known or new, True
        return
    with exclusive(module):
        token = _CURRENT.set(new)
        try:
            yield new, False
        finally:
            _CURRENT.reset(token)


def current(module: nn.Module) -> Session | None:
    """Return the session in which the module is used, or None."""
    found = _CURRENT.get()
    return found if found is not None and found.module is module else None


@contextmanager
def unwatched() -> Iterator[None]:
    """Leave the session inside the block, for passes that measure the model and may find that it has no gradient."""
    token, measured = _CURRENT.set(None), _MEASURED.set(True)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        _MEASURED.reset(measured)


def measured() -> bool:
    """Return whether the pass is one of `unwatched`, made once and remembered, which must use up no random draws."""
    return _MEASURED.get()


@contextmanager
def exclusive(module: nn.Module) -> Iterator[None]:
    """Let no other thread enter such a block for the same module: its mode is changed inside."""
    with _LOCKS.setdefault(module, threading.RLock()):
        yield


def note_finite(finite: Tensor) -> None:
    """Tell the session whether answers are finite, bool `[B]`, without waiting for the device."""
    found = _CURRENT.get()
    if found is not None:
        every = finite.all()
        found.finite = every if found.finite is None else found.finite & every


def mark(error: Exception) -> None:
    """Mark an exception as raised by the user's module."""
    setattr(error, _MARK, True)


@contextmanager
def model_errors(x: Tensor) -> Iterator[None]:
    """Turn an error that the user's module raises inside the block into a ModelError of one line.

    An error during back-propagation through the module becomes Unsupported. Errors of underfire and lack of memory are
    raised unchanged.

    Args:
        x: the inputs, whose shape is named.
    """
    try:
        yield
    except (UnderfireError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        if getattr(error, _MARK, False):
            what = f"the model does not take inputs of shape {list(x.shape)} and {x.dtype}".replace("torch.", "")
            raise ModelError(f"{what}: {reason}") from error
        if _in_backward(error):
            raise Unsupported(f"{NO_GRADIENT} ({reason})") from error
        raise


def _in_backward(error: Exception) -> bool:
    """Return whether torch itself raised the exception, during back-propagation."""
    names, trace = [], error.__traceback__
    while trace is not None:
        names.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    return names[-1].startswith("torch.") and any(name.startswith("torch.autograd") for name in names)
