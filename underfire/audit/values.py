"""Values that a spec file cannot contain, such as a function that is an option of an attack; their fingerprints."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from underfire.errors import DataError
from underfire.models.programs import compiled_parts

Plain = bool | int | float | complex | str | bytes | None
Describe = Callable[[Any], str]


class Live:
    """An object in a spec; its text, a name and a fingerprint, stands for it in the keys of cells and in files.

    Attributes:
        value: the object.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        name = getattr(value, "name", None) or getattr(value, "__name__", None) or type(value).__name__
        self._text = f"{name} {fingerprint(value)[:12]}"

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def wrap(value: Any) -> Any:
    """Return `value` with every object in it that a file cannot contain as a `Live`, and tuples as lists."""
    if isinstance(value, (bool, int, float, str, type(None), Live)):
        return value
    if isinstance(value, (list, tuple)):
        return [wrap(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): wrap(part) for key, part in value.items()}
    return Live(value)


def unwrap(value: Any) -> Any:
    """Return `value` with the objects themselves where `wrap` put a `Live`."""
    if isinstance(value, list):
        return [unwrap(part) for part in value]
    if isinstance(value, dict):
        return {key: unwrap(part) for key, part in value.items()}
    return value.value if isinstance(value, Live) else value


def as_text(value: Any) -> str:
    """Return the text that stands for an object in JSON: the argument `default` of `json.dumps`.

    Raises:
        TypeError: the object is not a `Live`.
    """
    if isinstance(value, Live):
        return str(value)
    raise TypeError(f"{value!r} cannot be written as JSON")


def fingerprint(value: Any) -> str:
    """Return a SHA-256 that is equal for values that behave the same.

    Tensors count by their content, modules by weights and code, and functions by their code, defaults, enclosed
    variables and the names of their own module that they use. Code of other modules counts by its name. A value of
    which nothing is known gets a new fingerprint in every call, so that no stored result is used for it.
    """
    return hashlib.sha256(describe(value, _object).encode()).hexdigest()


def describe(value: Any, other: Callable[[Any, Describe], str], seen: tuple[int, ...] = ()) -> str:
    """Return a text that stands for a value, the same in every process.

    Args:
        value: the value.
        other: `(value, describe) -> text` for objects of types that are not known here.
        seen: the `id` of every object that contains the value.
    """
    if isinstance(value, Plain) or value is ...:  # code that slices has an ellipsis among its constants
        return repr(value)
    if id(value) in seen:
        return "itself"

    def inner(part: Any) -> str:
        return describe(part, other, (*seen, id(value)))

    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (list, tuple)):
        return str([inner(item) for item in value])
    if isinstance(value, Set):
        return str(sorted(inner(item) for item in value))
    if isinstance(value, Mapping):
        return str([(inner(key), inner(item)) for key, item in value.items()])
    if isinstance(value, partial):
        return f"partial {inner(value.func)} {inner(value.args)} {inner(value.keywords)}"
    if isinstance(value, MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__} {_function(value, inner)}"
    if isinstance(value, (BuiltinFunctionType, ModuleType)):
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    if inspect.isclass(value):
        return _class(value)
    return module(value, seen) if isinstance(value, nn.Module) else other(value, inner)


def module(root: nn.Module, seen: tuple[int, ...] = ()) -> str:
    """Return a text that stands for a network: weights, structure, and the code of layers that are not part of torch.

    Args:
        root: the network.
        seen: the `id` of every object that contains the network.
    """
    layers = dict(root.named_modules())
    inside = (*seen, *map(id, layers.values()))
    lines = [f"{name} {describe(value, _nothing)}" for name, value in sorted(root.state_dict().items())]
    for name, layer in layers.items():
        lines.append(f"{name} {type(layer).__qualname__} {layer.extra_repr()} {attributes(layer, inside)}")
    own = {type(layer) for layer in layers.values()}
    lines += [hashlib.sha256(part.save_to_buffer()).hexdigest() for part in compiled_parts(root)]
    lines += sorted(_class(kind) for kind in own if not kind.__module__.startswith("torch."))
    return "\n".join(lines)


def attributes(layer: nn.Module, seen: tuple[int, ...] = (), without: Sequence[str] = ()) -> str:
    """Return the values that a module keeps outside its state, such as a scale or a buffer that is not saved.

    Args:
        layer: the module.
        seen: the `id` of every object that contains it.
        without: names of attributes that do not count.
    """
    usual = vars(nn.Module()).keys() | set(without)
    values = {key: value for key, value in vars(layer).items() if key not in usual}
    values |= dict(layer.named_buffers(recurse=False))
    texts = {key: describe(value, _nothing, seen) for key, value in sorted(values.items())}
    return str({key: text for key, text in texts.items() if text})


def _nothing(value: Any, inner: Describe) -> str:
    return ""


def _object(value: Any, inner: Describe) -> str:
    """Return a text for an object: its class and attributes, or a text used only once if its attributes are hidden."""
    kind = type(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if dataclasses.is_dataclass(value):
        return f"{_class(kind)} {inner({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})}"
    if kind.__module__.partition(".")[0] in ("builtins", "torch", "numpy") or not hasattr(value, "__dict__"):
        return uuid.uuid4().hex
    files = file_digests(text for text in vars(value).values() if isinstance(text, str))
    return f"{_class(kind)} {inner(vars(value))}{f' {files}' if files else ''}"


def file_digests(texts: Iterable[str]) -> dict[str, str]:
    """Return a SHA-256 of the content of every text that is the path of a file.

    Raises:
        DataError: a file cannot be read.
    """
    found = {}
    for text in texts:
        if os.path.isfile(text):  # noqa: PTH113 (no error for a text that cannot be a path)
            try:
                with Path(text).open("rb") as file:
                    found[text] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"cannot read {text!r}: {error.strerror or error}") from None
    return found


def _function(function: FunctionType, inner: Describe) -> str:
    """Return the code of a function with its defaults, its enclosed variables and the names that it uses."""
    enclosed = [_content(cell) for cell in function.__closure__ or ()]
    used = {
        name: function.__globals__[name]
        for name in sorted(_names(function.__code__))
        if name in function.__globals__ and _is_own(function.__globals__[name], function.__module__)
    }
    parts = (function.__defaults__, function.__kwdefaults__, enclosed, used)
    return " ".join((_code(function.__code__), *map(inner, parts)))


def _content(cell: Any) -> Any:
    """Return the value of an enclosed variable, or None if it is not assigned yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_own(value: Any, name: str | None) -> bool:
    """Return whether a value of a module's namespace was made there: a plain value, or code of this module."""
    return getattr(value, "__module__", name) == name and not isinstance(value, ModuleType)


def _names(code: CodeType) -> set[str]:
    """Return the names that a piece of code and the functions inside it look up."""
    return set(code.co_names).union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _code(code: CodeType) -> str:
    """Return a hash of a piece of code, without line numbers and file names."""
    constants = [_code(part) if isinstance(part, CodeType) else describe(part, _object) for part in code.co_consts]
    content = (code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _class(kind: type) -> str:
    """Return the name and the source of a class, or the code of its methods where the source is not available."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        return f"{name} {inspect.getsource(kind)}"
    except (OSError, TypeError):  # defined in an interactive session, or compiled
        methods = {key: value for key, value in sorted(vars(kind).items()) if isinstance(value, FunctionType)}
        return f"{name} {[(key, _code(value.__code__)) for key, value in methods.items()]}"
