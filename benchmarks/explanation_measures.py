"""Compare deletion and insertion curves, 224 steps, MobileNet, with bare passes and PixelFlipping of Quantus.

By default, Quantus removes one value of the image per step, 150,528 in all: the benchmark times the first steps and
extrapolates. With our number of steps, the whole run is timed. Quantus requires a number of values per step that
divides height times width, which 3 x 224 does not, so the benchmark disables this check.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.setting import declare_missing_operators, mobilenet
from benchmarks.timing import Row, clock, in_turn, ratio, spread
from underfire.attribution.chunks import image_chunk
from underfire.interpreters import grad_cam
from underfire.measures.deletion_insertion import deletion_curve, insertion_curve

STEPS = 224
BEGUN = 60  # steps of the default run of Quantus that are timed


class _EnoughError(Exception):
    """A signal that the model was called as often as needed."""


class Stopping(nn.Module):
    """Record the times at which a model is called, and raise `_EnoughError` after `limit` calls."""

    def __init__(self, model: nn.Module, limit: int) -> None:
        super().__init__()
        self.model, self.limit = model, limit
        self.times: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.times.append(clock())
        if len(self.times) > self.limit:
            raise _EnoughError
        return self.model(x)


def quantus_curve(model: nn.Module, x: Tensor, y: Tensor, m: Tensor, features: int) -> Tensor:
    """Return the probabilities of Quantus after each step of `features` values, `[B, steps]`."""
    import quantus

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flipping = quantus.PixelFlipping(
            features_in_step=features, perturb_baseline=0.0, normalise=False, abs=False, disable_warnings=True
        )
        flipping.custom_preprocess = lambda **_: None
        return torch.tensor(flipping(model, x.numpy(), y.numpy(), m.numpy(), softmax=True, channel_first=True))


def quantus_default_seconds(model: nn.Module, x: Tensor, y: Tensor, m: Tensor, steps: int = BEGUN) -> float:
    """Return the seconds of the default run of Quantus on the batch, extrapolated from its first steps."""
    stopping, start = Stopping(model, steps).eval(), clock()
    with contextlib.suppress(_EnoughError):
        quantus_curve(stopping, x, y, m, features=1)
    pace = (stopping.times[-1] - stopping.times[0]) / (len(stopping.times) - 1)
    return stopping.times[0] - start + pace * x[0].numel()


def measure(images: int = 2, rounds: int = 2, steps: int = STEPS, begun: int = BEGUN) -> dict[str, Any]:
    """Measure the seconds of every contestant, and the difference of the curves."""
    declare_missing_operators()
    model, x, y = mobilenet(images)
    m = nn.functional.interpolate(grad_cam(model, x, y), size=x.shape[2:], mode="bicubic")  # no two pixels alike
    features = x[0].numel() // steps
    found: dict[str, Tensor] = {}

    @torch.no_grad()
    def bare() -> None:
        for image in x:
            for part in image.expand(steps + 1, -1, -1, -1).split(image_chunk(x, None)):
                model(part)

    def ours() -> None:
        found["ours"] = deletion_curve(model, x, y, m, steps=steps)

    def theirs() -> None:
        found["theirs"] = quantus_curve(model, x, y, m, features)

    defaults: list[float] = []
    contestants = {
        "bare passes": bare,
        "deletion": ours,
        "insertion": lambda: insertion_curve(model, x, y, m, steps=steps),
        "quantus, the same points": theirs,
        "quantus, default, begun": lambda: defaults.append(quantus_default_seconds(model, x, y, m, begun)),
    }
    seconds = in_turn(contestants, rounds=rounds)
    with model.counting() as count:
        ours()
    apart = (found["ours"][:, 1:] - found["theirs"]).abs()
    own = seconds["deletion"]
    return {
        "images": images,
        "points": steps + 1,
        "chunk": image_chunk(x, None),
        "seconds": seconds,
        "seconds of quantus' default run, extrapolated": defaults[1:],
        "forward passes an image": {"underfire": count.forwards / images, "quantus, default": x[0].numel()},
        "largest difference of the curves": float(apart.max()),
        "mean difference of the curves": float(apart.mean()),
        "over the bare passes": {
            name: ratio(seconds[name], seconds["bare passes"]) for name in ("deletion", "insertion")
        },
        "faster than quantus": {
            "by default": ratio(defaults[1:], own),
            "at the same points": ratio(seconds["quantus, the same points"], own),
        },
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the speed over Quantus and bare passes, and the difference of the curves."""
    setting = f"deletion curve, {found['points']} points, MobileNet 224, {found['images']} images"
    apart = found["largest difference of the curves"]
    faster, bare = found["faster than quantus"], found["over the bare passes"]
    return [
        (
            f"{setting}: times as fast as Quantus with its default steps (extrapolated)",
            spread(faster["by default"], 0),
            "≥ 20",
        ),
        (f"{setting}: times as fast as Quantus with the same steps", spread(faster["at the same points"]), "the peer"),
        (f"{setting}: largest difference from the curve of Quantus", f"{apart:.1e}", "almost 0"),
        (f"{setting}: time over bare passes", spread(bare["deletion"]), "for comparison"),
        (
            f"insertion curve, {found['points']} points: time over bare passes",
            spread(bare["insertion"]),
            "for comparison",
        ),
    ]
