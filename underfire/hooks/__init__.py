"""Find and read the layers of a network, and change its backward pass.

All hooks and rules are removed when their context ends, and the model is as it was before. Layer names are those of the
user's module (`module.named_modules()`), not of the `Classifier` around it.
"""

from underfire.hooks.attention import explicit_attention
from underfire.hooks.choosing import choose_layers
from underfire.hooks.entrance import Entrance
from underfire.hooks.features import (
    Probe,
    all_features,
    check_pooling,
    choose_probes,
    features,
    pooled,
    stream_features,
)
from underfire.hooks.finding import as_maps, last_spatial_layer, layout_of, pooled_head, spatial_layers
from underfire.hooks.folding import folded
from underfire.hooks.layouts import Layout
from underfire.hooks.modified_gradients import ModifiedGradients
from underfire.hooks.networks import (
    channels_of,
    frozen,
    hides_functions,
    is_compiled,
    layer,
    readable_layers,
    refuse_compiled,
    unwrap,
    varies,
)
from underfire.hooks.normalisation import Normalised, normalised
from underfire.hooks.pyramid import PyramidLevel, feature_pyramid
from underfire.hooks.reading import (
    activations,
    bypass_cache,
    forward_from_layers,
    layers_read,
    shared_forward,
    uncached,
)
from underfire.hooks.relu_rules import (
    capture_relu_rule,
    deconv_relu,
    guided_relu,
    plain_relu,
    secant_relu,
    smooth_relu,
    softplus_relu,
    wide_relu,
)
from underfire.hooks.second_derivatives import twice_differentiable

__all__ = [
    "Entrance",
    "Layout",
    "ModifiedGradients",
    "Normalised",
    "Probe",
    "PyramidLevel",
    "activations",
    "all_features",
    "as_maps",
    "bypass_cache",
    "capture_relu_rule",
    "channels_of",
    "check_pooling",
    "choose_layers",
    "choose_probes",
    "deconv_relu",
    "explicit_attention",
    "feature_pyramid",
    "features",
    "folded",
    "forward_from_layers",
    "frozen",
    "guided_relu",
    "hides_functions",
    "is_compiled",
    "last_spatial_layer",
    "layer",
    "layers_read",
    "layout_of",
    "normalised",
    "plain_relu",
    "pooled",
    "pooled_head",
    "readable_layers",
    "refuse_compiled",
    "secant_relu",
    "shared_forward",
    "smooth_relu",
    "softplus_relu",
    "spatial_layers",
    "stream_features",
    "twice_differentiable",
    "uncached",
    "unwrap",
    "varies",
    "wide_relu",
]
