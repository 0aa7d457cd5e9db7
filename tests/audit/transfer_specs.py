"""A small audit and the sources and victims that tests of transfer add to it."""

from __future__ import annotations

from typing import Any

LINEAR, NARROW = "python:audit_networks:linear", "python:audit_networks:narrow"
PLAIN: dict[str, Any] = {
    "model": LINEAR,
    "data": {"uri": "digits:", "n": 40, "seed": 1},
    "attacks": [{"name": "fgsm", "eps": [0.1, 0.2], "label": "FGSM"}],
    "masking": False,
    "gallery": 0,
    "executor": "in-process",
    "shard_size": 16,
}
BITS = {"defenses": [{"name": "bit_depth", "bits": 2}], "label": "bits"}
PAD = {"defenses": [{"name": "resize_and_pad", "keep_size": True}], "label": "R&P", "samples": 2}
OTHERS: dict[str, Any] = {"sources": [LINEAR, NARROW], "victims": [LINEAR, NARROW, BITS, PAD], "draws": 3}
