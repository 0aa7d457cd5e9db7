"""Compute the terms that make a counterfactual plausible: closeness to known images in feature space, and smoothness.

Source: Van Looveren and Klaise, Interpretable Counterfactual Explanations Guided by Prototypes, ECML PKDD 2021, section
3, with the classifier's own layers as the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.ascent.objectives import Objective, objective
from underfire.ascent.step import Step, Targets
from underfire.attribution.feature_space import nearest_known, pooled_features
from underfire.errors import DataError
from underfire.hooks import last_spatial_layer

KINK = 0.02  # differences of neighbouring pixels below this count by their square (Huber)


def plausible(
    model: nn.Module,
    x: Tensor,
    targets: Targets,
    known: Tensor | None,
    layer: str | None,
    k: int,
    theta: float,
    smoothness: float,
) -> Objective | None:
    """Return minus the terms that make a changed image plausible, as an objective, or None if there are none.

    The terms are `theta` times the squared distance of its features to a prototype of the other class, divided by the
    squared distance of the unchanged image, and `smoothness` times the total variation of the change.

    Args:
        targets: the samples that are to change, and their classes.
        known: images `[N, C, H, W]`, each for the class that the model predicts; None leaves the prototypes out.
        layer: the layer of the feature space, averaged over space; None is the last spatial layer.
        k: how many known images are averaged for a prototype.
        theta: weight of the distance to the prototype.
        smoothness: weight of the total variation.

    Raises:
        DataError: known images are of another size, or none has the class.
    """
    terms = []
    if smoothness:
        terms.append(-smoothness * objective(lambda step: _variation(step.x - x[step.index])))
    if known is not None and theta:
        name = layer if layer is not None else last_spatial_layer(model, x)
        prototype = _prototypes(model, x, targets, known, name, k)
        start = x.new_ones(len(x))

        def distance(step: Step) -> Tensor:
            return (pooled_features(model, step.x, name)[1] - prototype[step.index]).square().sum(1) / start[step.index]

        with torch.no_grad():
            start[targets.index] = distance(targets.step(model, x[targets.index], x)).clamp_min(1e-12).to(x.dtype)
        terms.append(-theta * objective(distance))
    return sum(terms[1:], terms[0]) if terms else None


def _variation(change: Tensor) -> Tensor:
    """Return the sum of absolute differences of neighbouring pixels, `[B]`; squared (Huber) below `KINK`."""
    zero = torch.zeros((), dtype=change.dtype, device=change.device)
    steps = torch.cat([change.diff(dim=d).flatten(1) for d in (2, 3)], 1)
    return F.huber_loss(steps, zero.expand_as(steps), reduction="none", delta=KINK).sum(1) / KINK


@torch.no_grad()
def _prototypes(model: nn.Module, x: Tensor, targets: Targets, known: Tensor, layer: str, k: int) -> Tensor:
    """Return the prototype of each image, `[B, D]`: the mean features of the nearest known images of another class."""
    if known.shape[1:] != x.shape[1:]:
        raise DataError(f"known images must be [N, {', '.join(map(str, x.shape[1:]))}], got {tuple(known.shape)}")
    # features of the known images
    seen = [pooled_features(model, part, layer) for part in known.to(x).split(max(len(x), 32))]
    bad = sum(int((~s[1].isfinite().all(1)).sum()) for s in seen)
    if bad:
        raise DataError(f"layer {layer!r} gives NaN or infinite features for {bad} of {len(known)} known images")
    answers, features = torch.cat([s[0] for s in seen]).argmax(1), torch.cat([s[1] for s in seen])
    _, own = pooled_features(model, x[targets.index], layer)
    result = features.new_zeros(len(x), features.shape[1])
    # the nearest prototype among those of the allowed classes
    for i, (row, y) in enumerate(zip(targets.index.tolist(), targets.y.tolist(), strict=True)):
        classes = [c for c in answers.unique().tolist() if c != y] if targets.goal is None else [int(targets.goal[i])]
        means = []
        for c in classes:
            of_class = features[answers == c]
            if len(of_class):
                _, places = nearest_known(own[i : i + 1], of_class, min(k, len(of_class)))
                means.append(of_class[places[0]].mean(0))
        if not means:
            wanted = f"a class other than {y}" if targets.goal is None else f"class {classes[0]}"
            raise DataError(f"the model gives {wanted} to none of the {len(known)} known images; give others")
        choice = torch.stack(means)
        result[row] = choice[(choice - own[i]).square().sum(1).argmin()]
    return result
