"""Interrupt a training between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(active: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed inside the block; a second Ctrl-C interrupts at once.

    Nothing changes if it is not `active`, outside the main thread, and where Ctrl-C has another handler already.
    """
    usual, pressed = signal.getsignal(signal.SIGINT), False
    main = threading.current_thread() is threading.main_thread()
    if not (active and main and usual is signal.default_int_handler):
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, usual)
