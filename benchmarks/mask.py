"""Measure MASK with 300 steps: in batches, one image at a time, and in a direct PyTorch version of the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.setting import mobilenet
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.hooks import frozen
from underfire.interpreters import mask, mask_game

VARIANT = "adv2_v2"
STEPS = 300  # steps after which the objectives are compared
TIMED_STEPS = 5  # steps whose time is measured; all steps take equally long
#: The contestants of the results, as the table names them.
LABELS = {
    "together": "batches",
    "together, all at once": "one batch",
    "one by one": "single images",
    "plainly": "direct PyTorch",
}


def _plainly(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Return the masks `[B, 1, 28, 28]` of a direct version with the Adam, resizing and convolution of PyTorch."""
    line = torch.exp(-0.5 * (torch.arange(-5.0, 6) / 2.0) ** 2)
    kernel = (torch.outer(line, line) / line.sum() ** 2)[None, None]
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))  # the same jitter as ours
    masks = []
    for i in range(len(x)):
        game = mask_game(model, x[i : i + 1], y[i : i + 1], variant=VARIANT)
        chance = torch.Generator().manual_seed(seed)
        m = torch.full((1, 1, 28, 28), 0.5, requires_grad=True)
        adam = torch.optim.Adam([m], lr=0.1)
        with frozen(model):
            for _ in range(steps):
                top, left = torch.randint(0, 5, (2,), generator=chance).tolist()
                image, null = (
                    F.pad(p, (2, 2, 2, 2), mode="replicate")[:, :, top : top + 224, left : left + 224]
                    for p in (game.x, game.null)
                )
                large = F.interpolate(m, size=(224, 224), mode="bilinear", align_corners=False)
                large = F.conv2d(F.pad(large, (5, 5, 5, 5), mode="reflect"), kernel)
                p = model(image * large + null * (1 - large)).softmax(1)[0, y[i]]
                cubes = m.diff(dim=2).abs().pow(3).sum() + m.diff(dim=3).abs().pow(3).sum()
                loss = 1e-4 * (1 - m).abs().sum() + 1e-2 * cubes + p
                adam.zero_grad()
                loss.backward()
                adam.step()
                with torch.no_grad():
                    m.clamp_(0, 1)
        masks.append(m.detach())
    return torch.cat(masks)


def batched(n: int = 16, compared: int = 2, steps: int = STEPS, rounds: int = 5) -> dict[str, Any]:
    """Measure the seconds of every contestant, and the objective of a few images after all steps."""
    model, x, _ = mobilenet(n)
    y = model.predict(x).argmax(1)

    def one_by_one() -> None:
        for i in range(n):
            mask(model, x[i : i + 1], y[i : i + 1], variant=VARIANT, steps=TIMED_STEPS)

    seconds = in_turn(
        {
            "together": lambda: mask(model, x, y, variant=VARIANT, steps=TIMED_STEPS),
            "together, all at once": lambda: mask(model, x, y, variant=VARIANT, steps=TIMED_STEPS, chunk=n),
            "one by one": one_by_one,
            "plainly": lambda: _plainly(model, x, y, TIMED_STEPS),
        },
        rounds=rounds,
    )
    few, labels = x[:compared], y[:compared]
    ours = 1 - mask(model, few, labels, variant=VARIANT, steps=steps)
    theirs = _plainly(model, few, labels, steps)
    game = mask_game(model, few, labels, variant=VARIANT)
    with torch.no_grad(), frozen(model):
        objectives = {"together": game.objective(ours).tolist(), "plainly": game.objective(theirs).tolist()}
    return {
        "images": n,
        "timed steps": TIMED_STEPS,
        "steps": steps,
        "seconds": seconds,
        "throughput": {
            f"{name} over {ours}": ratio(seconds[name], seconds[ours])
            for ours in ("together", "together, all at once")
            for name in ("one by one", "plainly")
        },
        "objectives": objectives,
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the ratios of times, and the objectives."""
    setting = f"MASK, {found['images']} images of 224, MobileNet"
    objectives_text = "; ".join(
        f"{LABELS[name]} {', '.join(f'{value:.4f}' for value in values)}"
        for name, values in found["objectives"].items()
    )
    return [
        *(
            (
                f"{setting}: time of " + " over ".join(LABELS[part] for part in name.split(" over ")),
                spread(value),
                "≥ 1.3 on 2 cores" if "one by one" in name else "for comparison",
            )
            for name, value in found["throughput"].items()
        ),
        (f"MASK: objectives of two images after {found['steps']} steps", objectives_text, "no higher in batches"),
    ]
