"""A small audit spec, which the tests of bad input change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Fails = Callable[..., str]
SPEC: dict[str, Any] = {
    "model": "python:victims:right",
    "data": {"uri": "digits:", "n": 40},
    "attacks": [{"name": "pgd", "eps": [0.1, 0.2], "steps": 2}],
    "masking": False,
    "gallery": 1,
    "shard_size": 10,
    "executor": "in-process",  # on a busy machine, others would start processes in which nothing is patched
}


def spec(**changes: Any) -> Path:
    path = Path("spec.yaml")
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return path


def attack(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "pgd", "eps": 0.1, "steps": 2, **changes}]
