"""LIME and the lime package on the same superpixels: seconds, R², and how much of it another seed says again."""

from __future__ import annotations

import io
import statistics
import time
from contextlib import redirect_stderr
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.setting import cifar_resnet20, mobilenet
from benchmarks.timing import Row, ratio, spread
from underfire.interpreters import lime_fit
from underfire.interpreters.lime_fit import LimeFit, asked, planned, r_squared
from underfire.interpreters.superpixels import cut

TOP = 5
HELD_OUT = 400  # coalitions that no explanation has seen
QUANTITIES = ("logit", "probability")


class _Package:
    """What the lime package finds: logit and probability from the same passes, which it takes ten at a time."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, pieces: Tensor) -> None:
        from lime.lime_image import LimeImageExplainer

        self.explainer, self.model, self.x, self.y, self.pieces = LimeImageExplainer, model, x, y, pieces

    def __call__(self, samples: int, seed: int) -> dict[str, LimeFit]:
        with redirect_stderr(io.StringIO()):  # its progress bar
            return self.explain(samples, seed)

    def explain(self, samples: int, seed: int) -> dict[str, LimeFit]:
        found: dict[str, list[tuple[Tensor, float, float]]] = {quantity: [] for quantity in QUANTITIES}
        for image, label, pieces in zip(self.x, self.y, self.pieces, strict=True):

            @torch.no_grad()
            def classify(images: np.ndarray, label: int = int(label)) -> np.ndarray:
                logits = self.model(torch.from_numpy(images).float().permute(0, 3, 1, 2).contiguous())
                return torch.stack([logits[:, label], logits.softmax(1)[:, label]], 1).numpy()

            told = self.explainer(random_state=seed).explain_instance(
                image.permute(1, 2, 0).double().numpy(),
                classify,
                labels=(1, 0),  # the score that it keeps is that of the last
                top_labels=None,
                num_samples=samples,
                segmentation_fn=lambda _, pieces=pieces: pieces.numpy(),
            )
            for column, quantity in enumerate(QUANTITIES):
                weights = torch.tensor([w for _, w in sorted(told.local_exp[column])], dtype=torch.float64)
                found[quantity].append((weights, float(told.intercept[column]), told.score))
        return {quantity: _padded(rows, self.pieces) for quantity, rows in found.items()}


def _padded(rows: list[tuple[Tensor, float, float]], pieces: Tensor) -> LimeFit:
    weights = nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    intercept, r2 = (torch.tensor([row[k] for row in rows], dtype=torch.float64) for k in (1, 2))
    return LimeFit(weights, intercept, r2, pieces)


def against_package() -> dict[str, Any]:
    """MobileNet for the time, ResNet-20 for more images and seeds."""
    return {
        "MobileNet": _compare(*mobilenet(3), "quickshift", seeds=3),
        "ResNet-20": _compare(*cifar_resnet20(8), "slic", seeds=4),
    }


def _compare(
    model: nn.Module, x: Tensor, y: Tensor, superpixels: str, *, seeds: int, samples: int = 1000
) -> dict[str, Any]:
    y = model(x).argmax(1) if superpixels == "quickshift" else y  # photographs have no label to explain
    start = time.perf_counter()
    pieces = cut(x, superpixels)
    cutting = time.perf_counter() - start
    package = _Package(model, x, y, pieces)

    def ours(number: int, seed: int, design: str = "orthogonal") -> dict[str, LimeFit]:
        return {
            quantity: lime_fit(
                model, x, y, superpixels=pieces, samples=number, explained=quantity, design=design,
                generator=torch.Generator().manual_seed(seed),
            )
            for quantity in QUANTITIES
        }  # fmt: skip

    contestants = {
        "lime package": lambda seed: package(samples, seed),
        "underfire": lambda seed: ours(samples, seed),
        "underfire, half the samples": lambda seed: ours(samples // 2, seed),
    }
    fits: dict[str, list[dict[str, LimeFit]]] = {name: [] for name in contestants}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with torch.no_grad():
        for seed in range(1, seeds + 1):
            for name, contestant in contestants.items():
                start = time.perf_counter()
                fits[name].append(contestant(seed))
                # Ours is asked twice for what the package fits to the same passes.
                share = 1 if name == "lime package" else len(QUANTITIES)
                seconds[name].append(cutting + (time.perf_counter() - start) / share)
        fresh = _held_out(model, x, y, pieces)
    return {
        "images": len(x),
        "samples": samples,
        "seeds": seeds,
        "superpixels": [int(one.max()) + 1 for one in pieces],
        "seconds": seconds,
        **{
            name: {quantity: _judged([fit[quantity] for fit in fits[name]], fresh, quantity) for quantity in QUANTITIES}
            for name in contestants
        },
    }


def _held_out(model: nn.Module, x: Tensor, y: Tensor, pieces: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Coalitions of independent coins that nobody was fitted to, and the answers."""
    shown = planned(pieces, HELD_OUT, "independent", torch.Generator().manual_seed(10**6))
    return {q: (shown, asked(model, x, y, pieces, shown, explained=q)) for q in QUANTITIES}


def _judged(fits: list[LimeFit], fresh: dict[str, tuple[Tensor, Tensor]], quantity: str) -> dict[str, float]:
    """Means over images and seeds: R² as told, R² on fresh samples, shared top superpixels, spread of a weight."""
    shown, said = fresh[quantity]
    weights = torch.stack([fit.weights for fit in fits])
    absent = torch.arange(weights.shape[2]) > fits[0].segments.flatten(1).amax(1)[:, None]
    tops = [_top(w.masked_fill(absent, -torch.inf)) for w in weights]
    common = [(one & other).sum(1) / TOP for one, other in combinations(tops, 2)]
    told = {"R2": float(torch.stack([fit.r2 for fit in fits]).mean())} if quantity == QUANTITIES[0] else {}
    return {
        **told,  # the package keeps that of one quantity only
        "fresh R2": float(
            torch.stack([r_squared(f.weights, f.intercept, f.segments, shown, said) for f in fits]).mean()
        ),
        "top 5 in common": float(torch.stack(common).mean()),
        "spread": float((weights.std(0).sum(1) / weights.mean(0).abs().sum(1)).mean()),
    }


def _top(weights: Tensor) -> Tensor:
    """Which superpixels have the largest weights, bool `[B, S]`."""
    return torch.zeros_like(weights, dtype=torch.bool).scatter(1, weights.topk(TOP, dim=1).indices, True)


def rows(found: dict[str, Any]) -> list[Row]:
    """Time on photographs, and R² and agreement on both."""
    table: list[Row] = []
    for network, result in found.items():
        package, seconds = result["lime package"], result["seconds"]
        setting = f"LIME, {result['samples']} samples, {network}, {result['images']} images"
        middle = {name: statistics.median(times) / result["images"] for name, times in seconds.items()}
        for name in list(seconds)[1:]:
            faster = ratio(seconds["lime package"], seconds[name])
            table.append(
                (
                    f"{setting}: the lime package's time over that of {name}",
                    f"{spread(faster)}; {middle[name]:.2f} s an image",
                    "≥ 2 at the same R²",
                )
            )
        for quantity in QUANTITIES:
            told = "; ".join(
                f"{name}: R² {_r2(result[name][quantity])}, {result[name][quantity]['top 5 in common']:.0%} in common, "
                f"a weight varies by {result[name][quantity]['spread']:.1%}"
                for name in seconds
            )
            wanted = f"more than {package[quantity]['top 5 in common']:.0%} in common"
            table.append((f"{setting}, {quantity}: the top 5 superpixels of {result['seeds']} seeds", told, wanted))
    return table


def _r2(judged: dict[str, float]) -> str:
    own = f"{judged['R2']:.3f}, " if "R2" in judged else ""
    return f"{own}on fresh samples {judged['fresh R2']:.3f}"
