"""Measure a defence or an attack after the training of its network, on test images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, find

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.model import Classifier

EPS = 8 / 255
_BATCH = 64  # test images in one batch


def defended_accuracy(card: Card[Any], weights: Path, model: Classifier | None, test: Dataset) -> dict[str, float]:
    """Return measurements of a defence with trained weights on test images.

    They are the peak signal-to-noise ratio of the changed clean images in dB; with a model also its accuracy without
    and with the defence, on clean images and under PGD of 10 steps at 8/255, which attacks the model alone.
    """
    import torch

    from underfire.model import as_classifier

    pgd = find("attack", "pgd")
    alone = model if model is not None else as_classifier(lambda x: x.flatten(2).mean(2))
    defended = card.function(alone, weights=str(weights))
    columns: dict[str, list[Any]] = {}

    def note(name: str, values: Any) -> None:
        columns.setdefault(name, []).append(values.float())

    for batch in test.batches(_BATCH):
        x, y = batch.x.to(alone.mean.device), batch.y.to(alone.mean.device)
        with torch.no_grad():
            changed = defended.module.transform(x, defended.module.draws(x.device))
        note("error", (changed - x).square().flatten(1).mean(1))
        if model is None:
            continue
        x_adv = pgd(model, x, y, eps=EPS, steps=10)
        for what, images in (("accuracy", x), ("accuracy under transferred PGD 8/255", x_adv)):
            for how, network in (("", model), (", defended", defended)):
                note(what + how, network.predict(images).argmax(1) == y)
    means = {name: float(torch.cat(parts).mean()) for name, parts in columns.items()}
    ratio = -10 * math.log10(max(means.pop("error"), 1e-12))
    return {"test images": len(test), "PSNR of the changed images": ratio, **means}


def attacked_accuracy(card: Card[Any], weights: Path, model: Classifier, test: Dataset) -> dict[str, float]:
    """Return the accuracy of the model on test images, clean and under the attack with trained weights at 8/255."""
    import torch

    right: dict[str, list[Any]] = {"accuracy": [], f"accuracy under {card.name} 8/255": []}
    for batch in test.batches(_BATCH):
        x, y = batch.x.to(model.mean.device), batch.y.to(model.mean.device)
        for found, images in zip(right.values(), (x, card(model, x, y, eps=EPS, weights=str(weights))), strict=True):
            found.append(model.predict(images).argmax(1) == y)
    return {"test images": len(test), **{name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}}
