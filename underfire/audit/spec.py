"""Audit specs: read them from YAML, check them against the catalogue, and fill in their defaults.

Paths inside a spec are relative to the current folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from underfire.audit.methods import complete, complete_attack, complete_interpreter
from underfire.audit.schema import (
    PARTS,
    AttackSpec,
    AuditSpec,
    DataSpec,
    GateSpec,
    InterpreterSpec,
    MeasureSpec,
    ModelSpec,
    key_path,
    number,
)
from underfire.errors import SpecError, nearest

_LARGEST = 2**20
"""The largest size of a spec in bytes."""

__all__ = [
    "AttackSpec",
    "AuditSpec",
    "DataSpec",
    "GateSpec",
    "InterpreterSpec",
    "MeasureSpec",
    "ModelSpec",
    "load_spec",
    "number",
    "parse_attack",
    "parse_interpreter",
    "parse_spec",
    "read_yaml",
]


def load_spec(path: str | Path) -> AuditSpec:
    """Read an audit spec from a YAML file, check it, and fill in its defaults.

    Raises:
        SpecError: the file cannot be read, is not YAML, or has a wrong key or value; the message is one line and names
            the key.
    """
    import yaml

    try:
        with Path(path).open("rb") as file:  # not `is_file`: a pipe is a spec, too
            found = file.read(_LARGEST + 1)
        if len(found) > _LARGEST:
            raise SpecError(f"the spec {str(path)!r} has more than the {_LARGEST >> 20} MB that a spec may have")
        content = read_yaml(found.decode("utf-8"))
    except SpecError:
        raise
    except OSError as error:
        raise SpecError(f"cannot read the spec {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"the spec {str(path)!r} is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = str(getattr(error, "problem", error)).partition("\n")[0]
        raise SpecError(f"the spec {str(path)!r} is not valid YAML{place}: {problem}") from None
    except (ValueError, RecursionError) as error:  # a date that does not exist, a number of too many digits
        raise SpecError(f"the spec {str(path)!r} has a value that cannot be read: {error}") from None
    return parse_spec(content)


def parse_spec(content: Any) -> AuditSpec:
    """Check a spec given as plain values, and fill in its defaults.

    Raises:
        SpecError: a key or value is wrong; the message is one line and names the key.
    """
    if not isinstance(content, dict):
        raise SpecError(f"a spec must be a mapping with keys such as model and attacks, got {type(content).__name__}")
    try:
        spec = AuditSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_one_line(error)) from None
    return complete(spec)


def parse_attack(content: Mapping[str, Any]) -> AttackSpec:
    """Check one attack, given as the plain values of an entry of a spec, and fill in its defaults.

    Raises:
        SpecError: a key or value is wrong; the message is one line and names the key.
    """
    try:
        entry = AttackSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_one_line(error)) from None
    return complete_attack(entry, {}, "")


def parse_interpreter(content: Mapping[str, Any], *, maps_only: bool = True) -> InterpreterSpec:
    """Check one interpreter, given as the plain values of an entry of a spec, and fill in its defaults.

    Raises:
        SpecError: a key or value is wrong; or, with `maps_only`, the interpreter does not return maps.
    """
    try:
        entry = InterpreterSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_one_line(error)) from None
    return complete_interpreter(entry, "", maps_only=maps_only)


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text; raise YAMLError if a key occurs twice, which `SafeLoader` accepts."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value]
            names = [str(key.value) for key in keys]
            for i, (name, key) in enumerate(zip(names, keys, strict=True)):
                if name in names[:i]:
                    raise yaml.MarkedYAMLError(problem=f"the key {name!r} is given twice", problem_mark=key.start_mark)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader


def _one_line(error: ValidationError) -> str:
    """Return one line about the first error; an unknown key goes before other errors."""
    found = error.errors(include_url=False)
    # A misspelt key causes two errors, an unknown key and a missing one.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    unknown = first["type"] == "extra_forbidden"
    # Where a value may have several types, pydantic adds the type, such as `list[float]`, to the keys; drop it.
    keys = tuple(key for key in first["loc"] if unknown or isinstance(key, int) or key.isidentifier())
    path = key_path(*keys)
    if unknown:
        owner = str(keys[0]) if len(keys) > 1 else ""
        return f"unknown key {path!r}; {nearest(str(keys[-1]), PARTS[owner].model_fields)}"
    if first["type"] == "missing":
        return f"{path!r} is missing"
    if first["type"] == "too_short":
        return f"{path!r} is an empty list; give at least one"
    if first["type"] == "string_pattern_mismatch" and path == "executor":
        return f"{path!r} should be auto, in-process, processes, ray or ray://HOST:PORT, got {first['input']!r}"
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping of keys", first["msg"].removeprefix("Input "))
    return f"{path!r} {message}, got {first['input']!r}"
