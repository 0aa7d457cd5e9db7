"""Compare the one-pixel attack with torchattacks: ten generations of ten after the first, on ResNet-20."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import underfire as uf
from benchmarks.setting import cifar_resnet20, declare_missing_operators
from benchmarks.timing import Row, clock, in_turn, one_unit

POPULATION, GENERATIONS = 10, 10


def against_peers(n: int = 256, n_peer: int = 6) -> dict[str, Any]:
    """Measure time and success at equal numbers of evaluations; a unit is one forward and backward pass of `n` images.

    The peer takes one image at a time, so its time on `n_peer` images is scaled to `n`. Its success is compared with
    ours on the same images for several seeds, which show the random variation.
    """
    declare_missing_operators()
    import numpy as np
    import torchattacks

    model, x, y = cifar_resnet20(n)

    unit = one_unit(model, x, y)

    def ours(count: int, base: str, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return uf.attacks.one_pixel(
            model, x[:count], y[:count], population=POPULATION, steps=GENERATIONS, base=base, generator=generator
        )

    def peer(count: int) -> Tensor:
        np.random.seed(0)  # noqa: NPY002 (torchattacks draws from the global generator)
        attack = torchattacks.OnePixel(model, pixels=1, steps=GENERATIONS, popsize=POPULATION, inf_batch=128)
        return attack(x[:count], y[:count])

    contestants: dict[str, Callable[[int], Tensor]] = {
        "underfire": lambda count: ours(count, "random", 0),
        "underfire, base=best": lambda count: ours(count, "best", 0),
        "torchattacks": peer,
    }
    found, units, queries = {}, {}, {}
    for name, contestant in contestants.items():
        images = n_peer if name == "torchattacks" else n
        contestant(1)  # warm-up
        before = in_turn({"unit": unit}, rounds=2)["unit"]
        start = clock()
        with model.counting() as passes:
            found[name] = contestant(images)
        seconds = clock() - start
        after = in_turn({"unit": unit}, rounds=2)["unit"]
        units[name] = seconds / statistics.median(before + after) * n / images
        queries[name] = passes.forwards / images

    def fooled(x_adv: Tensor) -> float:
        return float((model.predict(x_adv).argmax(1) != y[: len(x_adv)]).float().mean())

    return {
        "images": n,
        "images of torchattacks": n_peer,
        "units": units,
        "queries per image": queries,
        "success": {name: fooled(images) for name, images in found.items()},
        "success on the images of torchattacks": {
            base: [fooled(ours(n_peer, base, seed)) for seed in range(5)] for base in ("random", "best")
        },
        "at most one pixel": {
            name: bool((uf.measures.l0_pixels(x[: len(images)], images) <= 1).all()) for name, images in found.items()
        },
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with units, queries and success."""
    table: list[Row] = []
    setting = f"one pixel, {GENERATIONS} generations of {POPULATION}, ResNet-20"
    for name, units in found["units"].items():
        images = found["images of torchattacks" if name == "torchattacks" else "images"]
        value = f"{units:.1f}; {found['queries per image'][name]:.1f} queries, success {found['success'][name]:.3f}"
        what = f"{setting}, {name}, {images} images: forward+backward units of {found['images']} images"
        table.append((what, value, "the peer" if name == "torchattacks" else "≤ 60"))
    same = found["success on the images of torchattacks"]["random"]
    what = f"{setting}, the {found['images of torchattacks']} images of torchattacks, five seeds: success"
    table.append((what, ", ".join(f"{rate:.3f}" for rate in same), f"≥ {found['success']['torchattacks']:.3f}"))
    return table
