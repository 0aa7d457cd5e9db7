"""Draw what ADV² can make an explanation show: `python -m tools.target_gallery`.

The picture has a row for each target: the target map, the adversarial image, and the map that it gets. Every image of a
row is classified as another digit than the clean image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire import data, models
from underfire.ascent.target_maps import Clean, TargetMap, benign, other_class, picture, random_patch, target_maps
from underfire.attacks import adv2
from underfire.figures import heatmap, save_small, sheet
from underfire.interpreters import grad_cam
from underfire.measures.maps import normalise

EPS = 16 / 255


def arrow(side: int = 32) -> Tensor:
    """Return a picture `[side, side]` of an arrow that points to the right, 1 on 0."""
    rows, columns = (torch.arange(side, dtype=torch.float32) + 0.5 - side / 2 for _ in range(2))
    down, right = rows[:, None].abs() / side, columns / side
    shaft = (down < 0.09) & (right > -0.4) & (right < 0.1)
    head = (right >= 0.05) & (down < 0.35 * (1 - (right - 0.05) / 0.37))
    return (shaft | head).float()


TARGETS: dict[str, TargetMap] = {
    "the clean map": benign(),
    "a rectangle": random_patch("rectangle", 0.1, 0.2),
    "a circle": random_patch("circle", 0.1, 0.2),
    "the map of another class": other_class(),
    "a picture": picture(arrow()),
}


def draw(path: Path, *, steps: int = 80, warm_steps: int = 20, seed: int = 0) -> dict[str, float]:
    """Write the picture, and return for each target the mean squared difference to the map that the image got."""
    model = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:test", n=5, seed=seed)[:]
    goal = (batch.y + 5) % 10
    predicted = model.predict(batch.x).argmax(1)
    clean = Clean(grad_cam(model, batch.x, predicted), predicted, goal)
    rows: list[list[Tensor | None]] = []
    found: dict[str, float] = {}
    for title, target in TARGETS.items():
        generator = torch.Generator().manual_seed(seed)
        wanted = target_maps(target, clean, resized=True, generator=generator)
        options: dict[str, Any] = {"eps": EPS, "steps": steps, "confidence": 0.5, "warm_steps": warm_steps}
        x_adv = adv2(model, batch.x, batch.y, interpreter=grad_cam, goal=goal, target=wanted, **options)
        pair = normalise(wanted), normalise(grad_cam(model, x_adv, goal))
        found[title] = float((pair[0] - pair[1])[0].square().mean())
        rows.append([heatmap(pair[0][0], batch.x[0]), x_adv[0], heatmap(pair[1][0], x_adv[0])])
    titles = ["target", "adversarial image", "its explanation"]
    save_small(sheet(rows, row_titles=list(TARGETS), column_titles=titles, cell=1.2), path)
    return found


def main() -> None:
    """Draw the picture, with the options of the command line."""
    parser = argparse.ArgumentParser(description="Draw what ADV² can make an explanation show.")
    parser.add_argument("--out", type=Path, default=Path("docs/images/adv2-targets.webp"), help="the file to write")
    options = parser.parse_args()
    for title, loss in draw(options.out).items():
        print(f"{title}: {loss:.3g}")


if __name__ == "__main__":
    main()
