"""Draw what the ideas of transfer attacks do to an image and to a gradient: `python -m tools.transfer_gallery`.

The first picture has a row for each view: the image, and versions that the attack sees. The second one shows the
gradient of a network as it is, and what the ideas that work on the gradient make of it. The third one shows what the
terms change: features, attention, and the transformation that an image must survive. With `--data`, the image of the
first picture is a photograph, otherwise one of the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Generator, Tensor

from underfire import data, find, models
from underfire.ascent.objective import Start
from underfire.ascent.threats import Linf
from underfire.attacks.transfer.tokens import TOKENS
from underfire.attacks.transfer.transformation.network import transformed
from underfire.attacks.transfer.transformation.training import Game, transformations_of
from underfire.figures import heatmap, save_small, sheet
from underfire.gradients import estimators, neighbourhoods, smoothing, views
from underfire.gradients.estimators import Estimator
from underfire.hooks import frozen
from underfire.interpreters import grad_cam

EPS = 16 / 255
#: The tokens of the first picture, each with options that show what it does.
VIEWS: dict[str, dict[str, float]] = {
    "di": {"probability": 1.0, "rate": 1.5},
    "si": {"copies": 4},
    "admix": {"copies": 1, "samples": 4},
    "ssm": {"samples": 4},
    "sia": {"samples": 4},
    "bsr": {"samples": 4},
    "ops": {"perturbations": 1, "samples": 4},
}


def versions_of(token: str, x: Tensor, y: Tensor, generator: Generator) -> list[Tensor]:
    """Return four versions of the first image that the view of a token yields, `[C, H, W]` each, within `[0, 1]`."""
    maker = TOKENS[token].views
    assert maker is not None
    context = {"eps": EPS} if token == "ops" else {}
    view = views.of_rows(maker(**VIEWS[token], **context), views.Rows(torch.arange(len(x)), y, x, y))
    found: list[Tensor] = []
    while len(found) < 4:
        found += [version[0].clamp(0, 1) for version in view(x, generator)]
    return found[-4:]


def draw_views(path: Path, uri: str, *, seed: int = 0) -> list[str]:
    """Write the picture of the views, and return the titles of its rows."""
    batch = data.load(uri, n=6, seed=seed)[:]
    rows: list[list[Tensor | None]] = []
    for token in VIEWS:
        generator = torch.Generator().manual_seed(seed)
        rows.append([batch.x[0], *versions_of(token, batch.x, batch.y, generator)])
    titles = list(VIEWS)
    columns = ["image", *(f"version {number}" for number in range(1, 5))]
    save_small(sheet(rows, row_titles=titles, column_titles=columns, cell=1.2), path)
    return titles


def estimates() -> Mapping[str, tuple[Estimator, Callable[[Tensor], Tensor]]]:
    """Return an estimator and a smoothing for each title of the second picture."""
    tuned, flat = estimators.variance_tuned, neighbourhoods.gradient_penalty
    return {
        "gradient": (estimators.autograd, smoothing.none),
        "ti": (estimators.autograd, smoothing.translation_kernel(7)),
        "vt": (estimators.without_memory(_second(tuned(20, 1.5 * EPS))), smoothing.none),
        "pgn": (flat(20, 3 * EPS, EPS / 10), smoothing.none),
    }


def _second(estimate: Estimator) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the estimate after one step on the spot, because variance tuning uses the variance of the step before."""

    def twice(loss: Callable[[Tensor], Tensor], z: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        state = estimate.init(z, torch.arange(len(z)))
        state = estimate.update(loss, z, generator, state)[2]
        value, gradient, _ = estimate.update(loss, z, generator, state)
        return value, gradient

    return twice


def draw_gradients(path: Path, *, seed: int = 0) -> dict[str, Tensor]:
    """Write the picture of the gradients, and return each, `[1, C, H, W]`, by its title."""
    model = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:test", n=1, seed=seed)[:]

    def loss(z: Tensor) -> Tensor:
        return -model(z).log_softmax(1).gather(1, batch.y[:, None]).squeeze(1)

    found = {}
    for title, (estimate, smooth) in estimates().items():
        found[title] = smooth(estimate(loss, batch.x, torch.Generator().manual_seed(seed))[1])
    shown: list[Tensor | None] = [batch.x[0], *(heatmap(g[0].sum(0, keepdim=True), batch.x[0]) for g in found.values())]
    save_small(sheet([shown], column_titles=["image", *found], cell=1.5), path)
    return found


def draw_terms(path: Path, *, seed: int = 0, outer_steps: int = 10) -> dict[str, Tensor]:
    """Write the picture of the terms, and return each column, `[B, C, H, W]`, by its title."""
    model = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:test", n=2, seed=seed)[:]
    x, y = batch.x, batch.y
    generator = torch.Generator().manual_seed(seed)
    found = {"image": x, "attention": grad_cam(model, x, y)}
    for name in ("mi", "ata_mi"):
        found[f"attention, {name}"] = grad_cam(model, find("attack", name)(model, x, y, eps=EPS), y)
    found["change, mi"] = find("attack", "mi")(model, x, y, eps=EPS) - x
    found["change, tap_mi"] = find("attack", "tap_mi")(model, x, y, eps=EPS) - x
    start = Start(model, x, y, None, Linf(EPS).projection(x), generator)
    size = torch.full((len(x),), EPS / 10)
    with frozen(model):
        weights = transformations_of(
            start, Game(), size=size, outer_steps=outer_steps, rate=1e-3, kernels=(3, 15), slope=0.01
        )
    found["at: T(x)"] = transformed(x, weights, 0.01).clamp(0, 1)
    rows: list[list[Tensor | None]] = [
        [c[i] if t in ("image", "at: T(x)") else heatmap(c[i].sum(0, keepdim=True), x[i]) for t, c in found.items()]
        for i in range(len(x))
    ]
    save_small(sheet(rows, column_titles=list(found), cell=1.2), path)
    return found


def main() -> None:
    """Draw the pictures, with the options of the command line."""
    parser = argparse.ArgumentParser(description="Draw what the ideas of transfer attacks do.")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="the folder to write to")
    parser.add_argument("--data", default="cluttered-digits:test", help="the images of the first picture")
    options = parser.parse_args()
    draw_views(options.out / "transfer-views.webp", options.data)
    draw_gradients(options.out / "transfer-gradients.webp")
    draw_terms(options.out / "transfer-terms.webp")


if __name__ == "__main__":
    main()
