"""Measure the time of real-time saliency (encoder and decoder) over one forward pass of the classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.setting import cifar10, mobilenet, photographs, zoo
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.hooks import frozen
from underfire.interpreters import RTS

IMAGES = {"MobileNet 224": 8, "ResNet-56": 64}


def forwards(images: dict[str, int] = IMAGES, rounds: int = 7) -> dict[str, Any]:
    """Measure on MobileNet with random decoder weights (of equal cost), on ResNet-56 with those of the package."""
    found: dict[str, Any] = {"images": images, "decoder parameters": {}, "time": {}, "seconds": {}}
    for name, n in images.items():
        if name == "ResNet-56":
            model, batch = zoo("resnet56_cifar10"), cifar10()[:n]
            x, y, interpret = batch.x, batch.y, RTS()
        else:
            model, x, y = mobilenet(n)
            interpret = RTS().fit(model, photographs(2), selector_steps=0, steps=0)

        def forward(model: nn.Module = model, x: torch.Tensor = x) -> object:
            with torch.no_grad(), frozen(model):
                return model(x)

        def explain(
            model: nn.Module = model, x: torch.Tensor = x, y: torch.Tensor = y, interpret: RTS = interpret
        ) -> object:
            with torch.no_grad():
                return interpret(model, x, y)

        seconds = in_turn({"forward": forward, "rts": explain}, rounds=rounds)
        found["seconds"][name] = seconds
        found["time"][name] = ratio(seconds["rts"], seconds["forward"])
        found["decoder parameters"][name] = sum(p.numel() for p in interpret._for(model).network.parameters())
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Return one row for each classifier."""
    return [
        (f"RTS, {name}, {found['images'][name]} images: time over one forward pass", spread(share), "≤ 3")
        for name, share in found["time"].items()
    ]
