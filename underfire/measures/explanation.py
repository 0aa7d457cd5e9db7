"""Faithfulness of an explanation: all measures in shared forward passes, the completeness gap, and the time it takes.

A constant map ranks no pixel; measures that need a ranking are nan for it, and `undefined` returns the reason. The
modules `localisation`, `weak_localisation` and `weak_segmentation` measure where a map is large, `sanity` what it
depends on, and `agreement` compares two maps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.attribution.fills import FILLS, fill_image
from underfire.attribution.variants import Interpreter, Model, class_scores
from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures import deletion_insertion as curves
from underfire.measures import fidelities as removals
from underfire.measures.arrays import as_map, ratio
from underfire.measures.deletion_insertion import deletion, deletion_curve, insertion, insertion_curve
from underfire.measures.fidelities import fidelity, fidelity_over_chance, removal
from underfire.measures.maps import informative
from underfire.measures.removal import Variant, pixel_order, score_variants
from underfire.measures.score_changes import infidelity
from underfire.measures.sensitivity import sensitivity_max

__all__ = [
    "completeness_gap",
    "deletion",
    "deletion_curve",
    "faithfulness",
    "fidelity",
    "fidelity_over_chance",
    "infidelity",
    "insertion",
    "insertion_curve",
    "removal",
    "seconds_per_image",
    "sensitivity_max",
    "undefined",
]


def undefined(m: Tensor) -> dict[int, str]:
    """Return a sentence for each map that ranks no pixels, by its index: why measures that need a ranking are nan.

    >>> undefined(torch.full((1, 1, 2, 2), 0.5))
    {0: 'the map is 0.5 everywhere: it ranks no pixel, so deletion, fidelity and localisation are undefined'}
    """
    sentences = {}
    for i in (~informative(m)).nonzero().flatten().tolist():
        known = bool(torch.isfinite(m[i]).all())
        what = f"{m[i].flatten()[0]:g} everywhere: it ranks no pixel" if known else "not finite"
        sentences[i] = f"the map is {what}, so deletion, fidelity and localisation are undefined"
    return sentences


def gap(m: Tensor, f: Tensor, f0: Tensor) -> Tensor:
    """Return the relative error of the map's sum as an estimate of the change of score `f - f0`, `[B]`."""
    change = f - f0
    return ratio((as_map(m).sum((1, 2, 3)).to(change) - change).abs(), change.abs())


@card(
    "measure",
    paper="Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017",
    table="maps",
    higher_is_better=False,
)
def completeness_gap(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, baseline: str | Tensor = "black", chunk: int | None = None
) -> Tensor:
    """Return the relative error of the map's sum as an estimate of the logit's change from the baseline, `[B]`.

    The measure applies to methods whose maps sum to that change at the size they are returned: integrated gradients,
    and gradient times input of a linear model. The result is nan where image and baseline have the same logit.

    Args:
        m: maps `[B, 1, h, w]`, as the method returns them.
        baseline: `"black"`, `"mean"`, `"blur"`, or images `[C, H, W]` or `[B, C, H, W]`.

    Raises:
        InputError: the shapes do not fit. ModelError: the model returns NaN.
    """
    if len(as_map(m)) != len(x):
        raise InputError(f"images and maps do not fit: got {tuple(x.shape)} and {tuple(m.shape)}")
    if not isinstance(baseline, str) and baseline.shape not in (x.shape, x.shape[1:]):
        wanted = tuple(x.shape[1:])
        raise InputError(f"the baseline must be {wanted}, or one for each image, got {tuple(baseline.shape)}")
    empty = (fill_image(x, baseline) if isinstance(baseline, str) else baseline.to(x)).expand_as(x)
    both = torch.stack([x, empty])
    logit, _ = class_scores(model, x, y, 2, lambda image, variant: both[variant, image], chunk)
    return gap(m, logit[:, 0], logit[:, 1])


@card(
    "measure",
    paper="Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020",
    higher_is_better=False,
    whole=True,
    timed=True,
)
def seconds_per_image(model: Model, x: Tensor, y: Tensor, interpreter: Interpreter, *, repeats: int = 5) -> float:
    """Return how long an explanation takes per image of the batch, in seconds: the median of `repeats` calls.

    One more call comes first and is not counted. The time of a call includes the work of an accelerator. The result is
    nan for an empty batch.

    Raises:
        InputError: `repeats` is below 1.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    seconds = []
    for _ in range(repeats + 1):
        _finish(x.device)
        start = time.perf_counter()
        interpreter(model, x, y)
        _finish(x.device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) / len(x) if len(x) else float("nan")


def _finish(device: torch.device) -> None:
    """Wait until an accelerator has finished its work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def faithfulness(
    model: Model,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    interpreter: Interpreter | None = None,
    steps: int = 224,
    shares: Sequence[float] = removals.SHARES,
    fills: Sequence[str] = FILLS,
    control: str = "shifted",
    samples: int = 4,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Return every measure of faithfulness of one map per image, each `[B]`, by name.

    Deletion, insertion, both fidelities and the completeness gap share their variants of the images: a variant that two
    of them need goes through the model once. The result also has both infidelities, and `sensitivity_max` if the
    `interpreter` is given.

    Args:
        m: maps `[B, 1, h, w]`; measures that need a ranking are nan where a map has none (see `undefined`).
        steps: number of steps of the deletion and the insertion curve.
        shares: shares of the pixels that fidelity removes.
        fills: what replaces the removed pixels.
        control: which pixels are removed for comparison, `"shifted"` or `"pixels"` (see `fidelities.control_orders`).
        samples: how many controls are averaged.

    Raises:
        InputError: an option is wrong, or the shapes do not fit. ModelError: the model returns NaN.
    """
    # list the variants of the images that the measures need
    order = pixel_order(m, x)
    size = x.shape[2], x.shape[3]
    orders = torch.cat([order, removals.control_orders(order, size, control, samples, generator)])
    pixels = orders.shape[2]
    out, back = curves.deletion_variants(pixels, steps, "black"), curves.insertion_variants(pixels, steps, "blur")
    removed = removals.removal_variants(pixels, shares, fills, len(orders))
    whole, empty = Variant("", 0), Variant("black", pixels)
    # evaluate all variants at once
    found = score_variants(model, x, y, orders, [*out, *back, *removed, whole, empty], chunk)
    table = removals.drops(found, removed, m, shares, fills)
    values = {
        "deletion": curves.area(curves.curve(found, out, m), out),
        "insertion": curves.area(curves.curve(found, back, m), back),
        "fidelity": table.drop.mean((1, 2)),
        "fidelity_over_chance": (table.drop - table.control).mean((1, 2)),
        "completeness_gap": gap(m, found[whole][0], found[empty][0]),
    }
    for perturbation in ("noise", "squares"):
        values[f"infidelity_{perturbation}"] = infidelity(
            model, x, y, m, perturbation=perturbation, generator=generator, chunk=chunk
        )
    if interpreter is not None:
        values["sensitivity_max"] = sensitivity_max(model, x, y, interpreter, generator=generator, chunk=chunk)
    return values
