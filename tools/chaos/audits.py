"""The small audit that the experiments run, and what is compared of its results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from underfire import data
from underfire.audit.ledger import TABLES, Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec, parse_spec
from underfire.audit.store import Store


def network() -> nn.Module:
    """Return the nearest class mean of scikit-learn's digits, which is a linear network."""
    batch = data.load("digits:")[:]
    means = torch.stack([batch.x[batch.y == k].flatten(1).mean(0) for k in range(10)])
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(means)
        layer.bias.copy_(-0.5 * means.square().sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def small() -> AuditSpec:
    """Return the spec of an audit of some 30 cells, each of which takes a few milliseconds."""
    return parse_spec(
        {
            "model": "python:tools.chaos.audits:network",
            "data": {"uri": "digits:", "n": 20, "seed": 1},
            "attacks": [{"name": "pgd", "norm": "linf", "eps": [0.05, 0.1], "steps": 10}],
            "interpreters": ["gradient"],
            "masking": False,
            "gallery": 2,
            "shard_size": 10,
        }
    )


def audit(folder: Path, workers: int = 0) -> None:
    """Run or continue the small audit."""
    run(small(), folder, workers=workers)


def state(folder: Path) -> dict[str, Any]:
    """Return the keys of the results in a run folder, the damaged files, and a hash of the tables if all is there."""
    store = Store(folder)
    keys = sorted(store.keys())
    found: dict[str, Any] = {"keys": keys, "damaged": list(store.damaged(keys).values()), "tables": None}
    if (folder / "ledger.json").exists():
        ledger = Ledger(folder)
        found |= {"missing": ledger.missing, "planned": ledger.planned}
        found["tables"] = None if ledger.missing else tables(ledger)
    return found


def tables(ledger: Ledger) -> str:
    """Return a hash of every table but for the time that things took."""
    digest = hashlib.sha256()
    for name in TABLES:
        columns = "* EXCLUDE (seconds)" if name == "rows" else "*"
        digest.update(json.dumps(ledger.sql(f"SELECT {columns} FROM {name} ORDER BY ALL")).encode())
    return digest.hexdigest()
