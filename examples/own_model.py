"""Audit a model of your own, in two ways.

From a spec, by a function without arguments that returns a `torch.nn.Module` with its weights:

    PYTHONPATH=examples underfire audit --model python:own_model:build --data folder:images

From Python, as in `main` below:

    python examples/own_model.py
"""

from __future__ import annotations

import torch
from torch import nn

import underfire as uf


def build() -> nn.Module:
    """Return the network; `model: python:own_model:build` in a spec calls this function. Put your own network here."""
    from underfire.models import load

    return load("zoo:cluttered_digits")


def main() -> None:
    """Attack eight images, and compare the predictions and one explanation before and after."""
    from underfire.data import load
    from underfire.measures import maps, perturbation

    torch.set_num_threads(1)
    module = build().eval()
    # The Classifier normalises, and attacks see images in [0, 1]. Pass the mean= and std= of your training.
    model = uf.Classifier(module, labels=[str(digit) for digit in range(10)])
    batch = load("cluttered-digits:test", n=8, seed=0)[:]  # your own images: load("folder:images?size=224", n=8)

    x_adv = uf.attacks.pgd(model, batch.x, batch.y, eps=8 / 255, steps=20, generator=torch.Generator().manual_seed(0))
    before, after = model.predict(batch.x).argmax(1), model.predict(x_adv).argmax(1)
    old = uf.interpreters.grad_cam(model, batch.x, before)
    new = uf.interpreters.grad_cam(model, x_adv, after)

    print("right before: ", int((before == batch.y).sum()), "of", len(batch))
    print("right after:  ", int((after == batch.y).sum()), "of", len(batch))
    print("largest change:", f"{float(perturbation.linf(batch.x, x_adv).max()) * 255:.1f}/255")
    print("map IoU:      ", " ".join(f"{value:.2f}" for value in maps.map_iou(old, new).tolist()))


if __name__ == "__main__":
    main()
