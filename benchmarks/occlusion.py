"""Compare occlusion (patch 32, stride 16) and RISE on MobileNet 224 with bare forward passes and Captum."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setting import declare_missing_operators, mobilenet
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.hooks import frozen
from underfire.interpreters import occlusion, rise

PATCH, STRIDE, POSITIONS = 32, 16, 169
CHUNKS = (1, 2, 4, 8, 16, 32)


def against_bare_passes(rounds: int = 5) -> dict[str, Any]:
    """Measure the seconds of 169 bare forward passes, of occlusion in three ways and of RISE with 169 masks; one image.

    The bare passes and Captum get the chunk that is fastest for them. The images of the bare passes are made before, so
    that only the passes are timed.
    """
    declare_missing_operators()
    from captum.attr import Occlusion

    model, x, y = mobilenet(1)
    found: dict[str, Tensor] = {}
    options: dict[str, Any] = {"patch": PATCH, "stride": STRIDE}

    def captum(chunk: int) -> None:
        shapes, strides = (3, PATCH, PATCH), (3, STRIDE, STRIDE)
        found["captum"] = Occlusion(model).attribute(
            x, target=y, sliding_window_shapes=shapes, strides=strides, perturbations_per_eval=chunk
        )

    def plain() -> None:
        found["plain"] = occlusion(model, x, y, reuse=False, **options)

    def reuse() -> None:
        found["reuse"] = occlusion(model, x, y, **options)

    with frozen(model), torch.no_grad():
        chunks = {
            "bare": _fastest(lambda chunk: _bare(model, x, chunk)),
            "bare, channels last": _fastest(lambda chunk: _bare(model, x, chunk, torch.channels_last)),
            "captum": _fastest(captum),
        }
        seconds = in_turn(
            {
                "bare": lambda: _bare(model, x, chunks["bare"]),
                "bare, channels last": lambda: _bare(model, x, chunks["bare, channels last"], torch.channels_last),
                "plain": plain,
                "reuse": reuse,
                "captum": lambda: captum(chunks["captum"]),
                "rise": lambda: rise(model, x, y, samples=POSITIONS),
            },
            rounds=rounds,
        )
        operations = {
            name: _operations(call) for name, call in (("bare", lambda: model(x)), ("plain", plain), ("reuse", reuse))
        }
    return {
        "seconds": seconds,
        "chunks": chunks,
        "over the bare passes": {name: ratio(taken, seconds["bare"]) for name, taken in seconds.items()},
        "operations over the bare passes": {
            name: operations[name] / (POSITIONS * operations["bare"]) for name in ("plain", "reuse")
        },
        "largest difference": {name: _gap(found[name], found["plain"]) for name in ("reuse", "captum")},
        "largest value": float(found["plain"].abs().max()),
    }


def _bare(model: nn.Module, x: Tensor, chunk: int, layout: torch.memory_format = torch.contiguous_format) -> None:
    """Pass 169 copies of the image through the model, `chunk` at a time."""
    copies = x.repeat(chunk, 1, 1, 1).contiguous(memory_format=layout)
    for size in [chunk] * (POSITIONS // chunk) + [POSITIONS % chunk] * bool(POSITIONS % chunk):
        model(copies[:size])


def _fastest(call: Callable[[int], None]) -> int:
    """Return the chunk with which a contestant is fastest, in the better of two runs."""

    def seconds(chunk: int) -> float:
        start = time.perf_counter()
        call(chunk)
        return time.perf_counter() - start

    return min(CHUNKS, key=lambda chunk: min(seconds(chunk) for _ in range(2)))


def _operations(call: Callable[[], object]) -> int:
    """Return the number of floating-point operations of a call."""
    with FlopCounterMode(display=False) as count:
        call()
    return int(count.get_total_flops())


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the time of each contestant over the bare passes."""
    over, operations, gap = (
        found[key] for key in ("over the bare passes", "operations over the bare passes", "largest difference")
    )
    setting = f"occlusion, patch {PATCH}, stride {STRIDE}, MobileNet 224, time over {POSITIONS} bare forward passes"
    equal = f"map equal to {gap['reuse']:.0e} of {found['largest value']:.1f}"
    return [
        (f"{setting}: every position computed in full", spread(over["plain"]), "≤ 1.0"),
        (
            f"{setting}: computing only what a patch can have changed",
            f"{spread(over['reuse'])}; {operations['reuse']:.2f} of the operations; {equal}",
            "≤ 0.6",
        ),
        (f"{setting}: Captum", f"{spread(over['captum'])}; map equal to {gap['captum']:.0e}", "the peer"),
        (f"{setting}: the bare passes in channels-last layout", spread(over["bare, channels last"]), "for comparison"),
        (
            f"RISE with {POSITIONS} masks, MobileNet 224: time over as many bare forward passes",
            spread(over["rise"]),
            "≤ 1.05",
        ),
    ]
