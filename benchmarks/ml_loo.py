"""Compare the leave-one-out passes of ML-LOO on ResNet-20 and CIFAR-10 with bare forward passes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.detectors import MLLOO
from underfire.hooks import choose_layers, frozen

PASSES = 3 * 32 * 32 + 1
CHUNKS = (8, 16, 32, 64)
LAYERS = "layer?.?"  # the nine blocks of the network


def against_bare_passes(rounds: int = 2) -> dict[str, Any]:
    """Measure the seconds of 3,073 bare forward passes and of the attributions and dispersions of one image.

    The bare passes get the chunk and the memory layout that are fastest for them, and their images are made before.
    """
    model, x, _ = cifar_resnet20(1)
    found: dict[str, Tensor] = {}

    def attributions(name: str, reuse: bool) -> None:
        detector = MLLOO(layers=LAYERS, reuse=reuse)
        layers = choose_layers(model, x, LAYERS)
        found[name] = detector.dispersions(model, x, layers)

    with frozen(model), torch.no_grad():
        ways = [(chunk, layout) for chunk in CHUNKS for layout in (torch.contiguous_format, torch.channels_last)]
        tried = in_turn({str(way): partial(_bare, model, x, *way, 256) for way in ways}, rounds=2)
        fastest = min(ways, key=lambda way: min(tried[str(way)]))
        seconds = in_turn(
            {
                "bare": lambda: _bare(model, x, *fastest, PASSES),
                "plain": lambda: attributions("plain", False),
                "reuse": lambda: attributions("reuse", True),
            },
            rounds=rounds,
        )
    return {
        "seconds": seconds,
        "chunk of the bare passes": fastest[0],
        "throughput over the bare passes": {name: ratio(seconds["bare"], taken) for name, taken in seconds.items()},
        "neurons": found["plain"].shape[1],
        "largest difference": float((found["reuse"] - found["plain"]).abs().max()),
        "largest value": float(found["plain"].max()),
    }


def _bare(model: nn.Module, x: Tensor, chunk: int, layout: torch.memory_format, passes: int) -> None:
    """Pass copies of the image through the model, `chunk` at a time."""
    copies = x.repeat(chunk, 1, 1, 1).contiguous(memory_format=layout)
    for first in range(0, passes, chunk):
        model(copies[: passes - first])


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the throughput of each contestant over that of the bare passes."""
    over = found["throughput over the bare passes"]
    setting = (
        f"ML-LOO, ResNet-20, one image, {found['neurons']} neurons: throughput over {PASSES:,} bare forward passes"
    )
    equal = f"dispersions equal to {found['largest difference']:.0e} of {found['largest value']:.1g}"
    return [
        (f"{setting}: every pass computed in full", spread(over["plain"]), "for comparison"),
        (f"{setting}: computing only what a pixel can have changed", f"{spread(over['reuse'])}; {equal}", "≥ 0.95"),
    ]
