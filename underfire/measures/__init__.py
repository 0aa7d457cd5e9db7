"""Pure functions from arrays to numbers: what an attack cost, whether it worked, and what became of the explanation.

Batched and on the device of the tensors; one value `[B]` per sample unless said. Narrow floats are widened to float32
first. `higher_is_better` on a card takes the side of whoever relies on the model: the *larger* the perturbation that an
attack needs, the better. A measure with `limits` on its card stays inside them. Some measures ask a model or an
interpreter, which they take as callables: `model(x)` gives logits, `interpreter(model, x, y)` a map.
"""

from underfire.measures import (
    agreement,
    curves,
    explanation,
    human,
    localisation,
    maps,
    perturbation,
    prediction,
    sanity,
    ssim,
    statistics,
    weak_localisation,
    weak_segmentation,
)

__all__ = [
    "agreement",
    "curves",
    "explanation",
    "human",
    "localisation",
    "maps",
    "perturbation",
    "prediction",
    "sanity",
    "ssim",
    "statistics",
    "weak_localisation",
    "weak_segmentation",
]
