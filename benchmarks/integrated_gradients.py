"""Compare integrated gradients, 50 steps, MobileNet 224, with bare passes and Captum, each at its fastest chunk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.memory import highest, in_own_process
from benchmarks.setting import mobilenet
from benchmarks.timing import Row, clock, in_turn, ratio, spread
from underfire.hooks import frozen

STEPS, IMAGES, CHUNKS = 50, 4, (4, 8, 12, 16)


def bare(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> None:
    """Run the same number of forward and backward passes, and nothing else."""
    points, classes = x.repeat_interleave(STEPS, 0), y.repeat_interleave(STEPS)
    with frozen(model):
        for point, k in zip(points.split(chunk), classes.split(chunk), strict=True):
            point.requires_grad_(True)
            torch.autograd.grad(model(point).gather(1, k[:, None]).sum(), point)


def ours(model: nn.Module, x: Tensor, y: Tensor, chunk: int | None = None) -> Tensor:
    """Run underfire; by default, the chunk is as large as 512 MiB allow."""
    return uf.interpreters.integrated_gradients(model, x, y, steps=STEPS, chunk=chunk)


def captums(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> Tensor:
    """Run Captum with its default quadrature and baseline, which are also ours, and frozen weights."""
    from captum.attr import IntegratedGradients

    with frozen(model):
        attribute = IntegratedGradients(model).attribute
        return attribute(x, target=y, n_steps=STEPS, internal_batch_size=chunk).detach().sum(1, keepdim=True)


VARIANTS: dict[str, Callable[..., Any]] = {"bare": bare, "ours": ours, "Captum": captums}


def seconds_by_chunk(run: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor) -> dict[int, float]:
    """Return the faster of two runs with one image, for every chunk."""
    found = dict.fromkeys(CHUNKS, float("inf"))
    for _ in range(2):
        for chunk in CHUNKS:
            start = clock()
            run(model, x[:1], y[:1], chunk)
            found[chunk] = min(found[chunk], clock() - start)
    return found


def measure() -> dict[str, Any]:
    """Measure the time, the passes and the memory of equal maps."""
    model, x, y = mobilenet(IMAGES)
    by_chunk = {name: seconds_by_chunk(VARIANTS[name], model, x, y) for name in ("bare", "Captum")}
    best = {name: min(seconds, key=seconds.__getitem__) for name, seconds in by_chunk.items()}
    arguments = {"bare": (best["bare"],), "ours": (), "Captum": (best["Captum"],)}
    found: dict[str, Any] = {}

    def run(name: str) -> None:
        found[name] = VARIANTS[name](model, x, y, *arguments[name])

    seconds = in_turn({name: partial(run, name) for name in VARIANTS}, rounds=7)
    passes = {}
    for name in VARIANTS:
        with model.counting() as count:
            VARIANTS[name](model, x[:1], y[:1], *arguments[name])
        passes[name] = {"forwards": count.forwards, "backwards": count.backwards}
    memory = {name: in_own_process(__name__, name, *map(str, arguments[name])) for name in VARIANTS}
    return {
        "images": IMAGES,
        "seconds of one image by chunk": by_chunk,
        "best chunk": best,
        "seconds": seconds,
        "over the bare passes": {name: ratio(seconds[name], seconds["bare"]) for name in ("ours", "Captum")},
        "over Captum": ratio(seconds["ours"], seconds["Captum"]),
        "passes per image": passes,
        "peak MB above start": memory,
        "largest difference from Captum": float((found["ours"] - found["Captum"]).abs().max()),
        "largest value": float(found["ours"].abs().max()),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the time over bare passes and over Captum, and the memory."""
    setting = f"integrated gradients, {STEPS} steps, MobileNet 224, {found['images']} images"
    memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in found["peak MB above start"].items())
    return [
        (f"{setting}: time over bare passes", spread(found["over the bare passes"]["ours"], 3), "≤ 1.03"),
        (
            f"{setting}, Captum: time over bare passes",
            spread(found["over the bare passes"]["Captum"], 3),
            "the peer",
        ),
        (f"{setting}: time over that of Captum", spread(found["over Captum"], 3), "≤ 1"),
        (f"{setting}: peak memory", memory, "≤ 512 MB"),
    ]


if __name__ == "__main__":
    network, images, labels = mobilenet(IMAGES)
    variant, chunk = VARIANTS[sys.argv[1]], [int(word) for word in sys.argv[2:]]
    variant(network, images[:1], labels[:1], *chunk)
    print(highest(lambda: variant(network, images, labels, *chunk)))
