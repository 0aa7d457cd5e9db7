"""Compare LIME with the lime package on equal superpixels: seconds, R², and agreement between seeds."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.setting import cifar_resnet20, mobilenet
from benchmarks.timing import Row, clock, ratio, spread
from underfire.attribution.superpixels import segment
from underfire.interpreters import lime_fit
from underfire.interpreters.lime.regression import LimeFit, draw_plan, evaluate_samples, r_squared
from underfire.measures.statistics import paired_difference

PACKAGE = "lime package"
TOP = 5
HELD_OUT = 400  # coalitions that are not used by any fit
QUANTITIES = ("logit", "probability")
Timed = tuple[dict[str, LimeFit], float]


class _Recorded(nn.Module):
    """Record the answers of a model; with `repeats`, return them again instead of running the passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.answers: list[Tensor] = []
        self.repeats = False

    def forward(self, x: Tensor) -> Tensor:
        if self.repeats:
            # a pass of one image, by which the chunk is chosen or a model prepared, need not come again
            while len(self.answers[0]) != len(x):
                self.answers.pop(0)
            return self.answers.pop(0)
        self.answers.append(self.model(x))
        return self.answers[-1]


class _Package:
    """Explain logit and probability with the lime package, both from the same passes, in batches of ten."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, pieces: Tensor) -> None:
        from lime.lime_image import LimeImageExplainer

        self.explainer, self.model, self.x, self.y, self.pieces = LimeImageExplainer, model, x, y, pieces

    def __call__(self, samples: int, seed: int) -> Timed:
        start = clock()
        with redirect_stderr(io.StringIO()):  # its progress bar
            found = self.explain(samples, seed)
        return found, clock() - start

    def explain(self, samples: int, seed: int) -> dict[str, LimeFit]:
        found: dict[str, list[tuple[Tensor, float, float]]] = {quantity: [] for quantity in QUANTITIES}
        for image, label, pieces in zip(self.x, self.y, self.pieces, strict=True):

            @torch.no_grad()
            def classify(images: np.ndarray, label: int = int(label)) -> np.ndarray:
                logits = self.model(torch.from_numpy(images).float().permute(0, 3, 1, 2).contiguous())
                return torch.stack([logits[:, label], logits.softmax(1)[:, label]], 1).numpy()

            explanation = self.explainer(random_state=seed).explain_instance(
                image.permute(1, 2, 0).double().numpy(),
                classify,
                labels=(1, 0),  # it keeps the score of the last label only
                top_labels=None,
                num_samples=samples,
                segmentation_fn=lambda _, pieces=pieces: pieces.numpy(),
            )
            for column, quantity in enumerate(QUANTITIES):
                weights = torch.tensor([w for _, w in sorted(explanation.local_exp[column])], dtype=torch.float64)
                found[quantity].append((weights, float(explanation.intercept[column]), explanation.score))
        return {quantity: _padded(rows, self.pieces) for quantity, rows in found.items()}


def _padded(rows: list[tuple[Tensor, float, float]], pieces: Tensor) -> LimeFit:
    """Return the fits of single images, (weights, intercept, R²), as one fit of the batch."""
    weights = nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    intercept, r2 = (torch.tensor([row[k] for row in rows], dtype=torch.float64) for k in (1, 2))
    return LimeFit(weights, intercept, r2, pieces)


def against_package() -> dict[str, Any]:
    """Compare on MobileNet, where the model takes most of the time, and on ResNet-20 with more images and seeds."""
    return {
        "MobileNet": _compare(*mobilenet(2), "quickshift", seeds=3),
        "ResNet-20": _compare(*cifar_resnet20(10), "slic", seeds=4),
    }


def _compare(
    model: nn.Module, x: Tensor, y: Tensor, superpixels: str, *, seeds: int, samples: int = 1000
) -> dict[str, Any]:
    y = model(x).argmax(1) if superpixels == "quickshift" else y  # of photographs, the prediction is explained
    start = clock()
    pieces = segment(x, superpixels)
    cutting = clock() - start
    package = _Package(model, x, y, pieces)

    recorded = _Recorded(model)
    # the first call makes passes of its own, by which it chooses the chunk; they must not be timed
    lime_fit(recorded, x, y, superpixels=pieces, samples=2)

    def ours(number: int, seed: int) -> Timed:
        """Explain both quantities from the same passes, as the package does; the time is that of the logits."""
        recorded.answers.clear()
        fits, seconds = {}, []
        for quantity in QUANTITIES:
            recorded.repeats = quantity != QUANTITIES[0]
            chance = torch.Generator().manual_seed(seed)
            start = clock()
            fits[quantity] = lime_fit(
                recorded, x, y, superpixels=pieces, samples=number, output=quantity, generator=chance
            )
            seconds.append(clock() - start)
        return fits, seconds[0]

    contestants: dict[str, Callable[[int], Timed]] = {
        PACKAGE: lambda seed: package(samples, seed),
        "underfire": lambda seed: ours(samples, seed),
        "underfire, half the samples": lambda seed: ours(samples // 2, seed),
    }
    fits: dict[str, list[dict[str, LimeFit]]] = {name: [] for name in contestants}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    # every seed and contestant in turn; the time of the superpixels counts for all
    with torch.no_grad():
        for seed in range(1, seeds + 1):
            for name, contestant in contestants.items():
                found, took = contestant(seed)
                fits[name].append(found)
                seconds[name].append(cutting + took)
        fresh = _held_out(recorded, x, y, pieces)
    return {
        "images": len(x),
        "samples": samples,
        "seeds": seeds,
        "superpixels": [int(one.max()) + 1 for one in pieces],
        "seconds": seconds,
        **{
            name: {
                quantity: _evaluate([fit[quantity] for fit in fits[name]], fresh, quantity) for quantity in QUANTITIES
            }
            for name in contestants
        },
    }


def _held_out(recorded: _Recorded, x: Tensor, y: Tensor, pieces: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw coalitions by independent coin flips, not used by any fit, and return them with the model's answers."""
    coalitions = draw_plan(pieces, HELD_OUT, "independent", torch.Generator().manual_seed(10**6))
    fresh = {}
    recorded.answers.clear()
    for quantity in QUANTITIES:
        recorded.repeats = quantity != QUANTITIES[0]
        fresh[quantity] = coalitions, evaluate_samples(recorded, x, y, pieces, coalitions, output=quantity)
    return fresh


def _evaluate(fits: list[LimeFit], fresh: dict[str, tuple[Tensor, Tensor]], quantity: str) -> dict[str, Any]:
    """Return means over images and seeds: R², R² on fresh samples, common top superpixels, spread of a weight."""
    coalitions, answers = fresh[quantity]
    weights = torch.stack([fit.weights for fit in fits])
    absent = torch.arange(weights.shape[2]) > fits[0].segments.flatten(1).amax(1)[:, None]
    tops = [_top(w.masked_fill(absent, -torch.inf)) for w in weights]
    common = [(one & other).sum(1) / TOP for one, other in combinations(tops, 2)]
    r2 = {"R2": float(torch.stack([fit.r2 for fit in fits]).mean())} if quantity == QUANTITIES[0] else {}
    return {
        **r2,  # the package keeps R² of one quantity only
        "fresh R2": float(
            torch.stack([r_squared(f.weights, f.intercept, f.segments, coalitions, answers) for f in fits]).mean()
        ),
        "top 5 in common": float(torch.stack(common).mean()),
        "top 5 in common, by image": torch.stack(common).mean(0).tolist(),
        "spread": float((weights.std(0).sum(1) / weights.mean(0).abs().sum(1)).mean()),
    }


def _top(weights: Tensor) -> Tensor:
    """Return which superpixels have the largest weights, bool `[B, S]`."""
    return torch.zeros_like(weights, dtype=torch.bool).scatter(1, weights.topk(TOP, dim=1).indices, True)


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with times, R² and agreement."""
    table: list[Row] = []
    for network, result in found.items():
        seconds = result["seconds"]
        setting = f"LIME, {result['samples']} samples, {network}, {result['images']} images"
        middle = {name: statistics.median(times) / result["images"] for name, times in seconds.items()}
        for name in list(seconds)[1:]:
            table.append(
                (
                    f"{setting}: time of the lime package over that of {name}",
                    f"{spread(ratio(seconds[PACKAGE], seconds[name]))}; {middle[name]:.2f} s an image",
                    "≥ 2 at the same R²",
                )
            )
        for quantity in QUANTITIES:
            value = "; ".join(_format(name, result[name][quantity], result[PACKAGE][quantity]) for name in seconds)
            wanted = f"no less than {result[PACKAGE][quantity]['top 5 in common']:.0%} in common"
            table.append(
                (
                    f"{setting}, {quantity}: agreement of the top 5 superpixels between {result['seeds']} seeds",
                    value,
                    wanted,
                )
            )
    return table


def _format(name: str, result: dict[str, Any], package: dict[str, Any]) -> str:
    """Return one contestant's R² and agreement, and the difference of the agreement from the package's."""
    own = f"{result['R2']:.3f}, " if "R2" in result else ""
    text = f"{name}: R² {own}on fresh samples {result['fresh R2']:.3f}, {result['top 5 in common']:.0%} in common"
    if name != PACKAGE:
        more = asdict(paired_difference(*(which["top 5 in common, by image"] for which in (result, package))))
        text += f" ({more['value']:+.0%}, 95 % interval over images {more['low']:+.0%} to {more['high']:+.0%})"
    return f"{text}, a weight varies by {result['spread']:.1%}"
