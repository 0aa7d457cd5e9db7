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
    DetectorSpec,
    GateSpec,
    InterpreterSpec,
    MeasureSpec,
    ModelSpec,
    SampleSpec,
    SourceSpec,
    VictimSpec,
    key_path,
    number,
)
from underfire.audit.yaml_files import load_yaml, read_yaml
from underfire.errors import SpecError, nearest, shown

__all__ = [
    "AttackSpec",
    "AuditSpec",
    "DataSpec",
    "DetectorSpec",
    "GateSpec",
    "InterpreterSpec",
    "MeasureSpec",
    "ModelSpec",
    "SampleSpec",
    "SourceSpec",
    "VictimSpec",
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
    return parse_spec(load_yaml(path))


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


def _one_line(error: ValidationError) -> str:
    """Return one line about the first error; an unknown key is reported before other errors."""
    found = error.errors(include_url=False)
    # A misspelt key causes two errors, an unknown key and a missing one.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    unknown = first["type"] == "extra_forbidden"
    # Where a value may have several types, pydantic adds the type, such as `list[float]`, to the keys; drop it.
    keys = tuple(key for key in first["loc"] if unknown or isinstance(key, int) or key.isidentifier())
    path = shown(key_path(*keys), 300)
    if unknown:
        owner = next((str(key) for key in reversed(keys[:-1]) if key in PARTS), "")
        return f"unknown key {path}; {nearest(str(keys[-1]), PARTS[owner].model_fields)}"
    if first["type"] == "missing":
        return f"{path} is missing"
    if first["type"] == "too_long":
        return f"{path} has {first['ctx']['actual_length']} entries; at most {first['ctx']['max_length']} are possible"
    if first["type"] == "too_short":
        return f"{path} is an empty list; give at least one"
    if first["type"] == "string_pattern_mismatch" and keys == ("executor",):
        return f"{path} should be auto, in-process, processes, ray or ray://HOST:PORT, got {shown(first['input'])}"
    message = re.sub(r"^(Input|Value error,) ", "", first["msg"])
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping of keys", message)
    return f"{path} {message}, got {shown(first['input'])}"
