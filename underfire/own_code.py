"""Run code of the user, such as a function that builds a model, and report its errors in one line."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from underfire.errors import InputError, UnderfireError, nearest

PATIENCE = 30.0
"""The interval in seconds at which code of the user that has not ended is reported as still running."""


@contextmanager
def running(what: str, error: type[InputError]) -> Iterator[None]:
    """Run code of the user in a `with` block; what it prints goes to stderr.

    Args:
        what: the name of the code in messages, such as `python:own_model:build`.
        error: the class of the error to raise.

    Raises:
        error: the code raised an exception or called `sys.exit`; one line with its kind, its message and its place.
    """
    finished = threading.Event()

    def watch() -> None:
        seconds = 0.0
        while not finished.wait(PATIENCE):
            seconds += PATIENCE
            print(f"{what} has been running for {seconds:.0f} s; Ctrl-C stops it", file=sys.stderr)

    threading.Thread(target=watch, daemon=True).start()
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (UnderfireError, MemoryError):
        raise
    except (Exception, SystemExit) as raised:
        raise error(f"{what} failed: {describe(raised)}") from raised
    finally:
        finished.set()


def describe(error: BaseException) -> str:
    """Return the kind, the first line of the message, and the file and line of an exception.

    >>> describe(ValueError("3 is too many"))
    'ValueError: 3 is too many'
    """
    lines = str(error).splitlines()
    message = f": {lines[0][:300]}" if lines else ""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError):
        message, place = f": {error.msg}", f" ({error.filename}, line {error.lineno})"
    else:
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    kind = "it called sys.exit" if isinstance(error, SystemExit) else type(error).__name__
    return kind + message + place


def find(uri: str, error: type[InputError]) -> Any:
    """Return the object behind `python:package.module:name`; the module may be in the current folder.

    Raises:
        error: the URI has another form, the module cannot be imported, or has no such name.
    """
    scheme, _, path = uri.partition(":")
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise error(f"{uri} must be {scheme}:package.module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with `python -m`
    importlib.invalidate_caches()
    try:
        with running(uri, error):
            module = importlib.import_module(module_name)
    except error as failed:
        if isinstance(failed.__cause__, ImportError):
            raise error(f"{uri} cannot be imported: {failed.__cause__}") from failed.__cause__
        raise
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if not inspect.ismodule(value) and not key.startswith("_")]
        raise error(f"module {module_name!r} has no {name!r}; {nearest(name, names)}")
    return getattr(module, name)


def call(uri: str, function: Any, options: Mapping[str, str], error: type[InputError]) -> Any:
    """Return `function(**options)`; the values of the options are read by `literal`.

    Raises:
        error: the function needs other arguments, or fails.
    """
    given = {name: literal(text) for name, text in options.items()}
    try:
        inspect.signature(function).bind(**given)
    except TypeError as wrong:
        raise error(f"{uri}: {wrong}; arguments follow the name, as in {uri}?argument=value") from wrong
    except ValueError:  # some functions written in C have no signature
        pass
    with running(uri, error):
        return function(**given)


def literal(text: str) -> Any:
    """Return the value of a Python literal, of `true`, `false` or `none`; any other text is returned as it is.

    >>> literal("3"), literal("true"), literal("(1, 2)"), literal("resnet18")
    (3, True, (1, 2), 'resnet18')
    """
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text) if len(text) <= 1000 else text
    except (ValueError, SyntaxError):
        return text
