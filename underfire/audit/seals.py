"""Checksums: JSON objects that carry one of their own content, and files whose size and checksum are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard


def seal(content: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """Return an object as JSON, with a checksum of its content under the key `checksum`.

    `default` returns a plain value in place of one that JSON cannot represent, as in `json.dumps`.
    """
    plain = json.loads(json.dumps(content, default=default))
    return json.dumps({**plain, "checksum": _checksum(plain)}, indent=1).encode()


def unseal(text: bytes) -> dict[str, Any]:
    """Return the object that `seal` wrote, without its checksum.

    Raises:
        ValueError: the text is not such an object, or has been changed; the message is the predicate of a sentence.
    """
    content = parse_object(text)
    if content.pop("checksum", None) != _checksum(content):
        raise ValueError("has been changed: its checksum does not match")
    return content


def parse_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object without a check of its content.

    Raises:
        ValueError: the text is not a JSON object; the message is the predicate of a sentence.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")
    return content


def describe(content: bytes) -> dict[str, Any]:
    """Return the size in bytes and the SHA-256 of a file, which `is_whole` compares with its content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def is_whole(content: bytes | None, described: Mapping[str, Any]) -> TypeGuard[bytes]:
    """Return whether a file exists and still is as `describe` described it."""
    return content is not None and describe(content) == described


def _checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object, which does not depend on the order of its keys or on white space."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
