"""Reading and bending the inside of a network; whatever is put on a model comes off when its context ends.

Layer names are those of the user's module (`module.named_modules()`), not of the `Classifier` around it.
"""

from underfire.hooks.finding import as_maps, last_spatial_layer, pooled_head, space_of
from underfire.hooks.layouts import Space
from underfire.hooks.pyramid import Scale, scales
from underfire.hooks.reading import (
    activations,
    aside,
    frozen,
    inner,
    layer,
    shared_forward,
    tail,
    twice_differentiable,
    unshared,
)
from underfire.hooks.relu_rules import bent_as_now, deconv_relu, guided_relu, smooth_relu, wide_relu

__all__ = [
    "Scale",
    "Space",
    "activations",
    "as_maps",
    "aside",
    "bent_as_now",
    "deconv_relu",
    "frozen",
    "guided_relu",
    "inner",
    "last_spatial_layer",
    "layer",
    "pooled_head",
    "scales",
    "shared_forward",
    "smooth_relu",
    "space_of",
    "tail",
    "twice_differentiable",
    "unshared",
    "wide_relu",
]
