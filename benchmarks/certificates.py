"""Measure the accuracy that a certificate proves and the accuracy that an attack leaves; the true one lies between."""

from __future__ import annotations

from typing import Any

import torch

import underfire as uf
from benchmarks.setting import mnist, zoo
from benchmarks.timing import Row
from underfire.measures.certificate import margin_bound
from underfire.measures.statistics import rate

IMAGES, EPS, CHUNK = 100, 0.1, 10


def on_mnist() -> dict[str, Any]:
    """Measure the certified accuracy of `mnist_linf_0.1` and its accuracy under PGD."""
    model = zoo("mnist_linf_0.1", "certified")
    batch = mnist()[:IMAGES]
    parts = torch.arange(IMAGES).split(CHUNK)
    right = model.predict(batch.x).argmax(1) == batch.y
    bound = torch.cat([margin_bound(model, batch.x[p], batch.y[p], eps=EPS) for p in parts])
    x_adv = uf.attacks.pgd(model, batch.x, batch.y, eps=EPS, steps=100, step_size=0.01)
    left = model.predict(x_adv).argmax(1) == batch.y
    certified = right & (bound > 0)
    return {
        "certified": str(rate(certified)),
        "left by PGD": str(rate(left)),
        "certified and fooled": int((certified & ~left).sum()),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the row of the certificate and of the attack."""
    values = f"{found['certified']} certified, {found['left by PGD']} left by PGD-100"
    setting = f"mnist_linf_0.1, L∞ {EPS:g}, {IMAGES} images: dual bound and attack"
    return [(setting, f"{values}; {found['certified and fooled']} certified images fooled", "0.96, 0 fooled")]
