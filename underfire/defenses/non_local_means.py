"""Non-local smoothing (Xu, Evans and Qi, NDSS 2018)."""

from __future__ import annotations

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms import non_local_means as denoiser


@card(
    "defense",
    paper="Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018",
    differentiable=False,
)
def non_local_means(model: Classifier, *, search: int = 11, template: int = 3, strength: float = 4.0) -> Defended:
    """Replace every pixel by a mean of the pixels around it, weighted by how similar their neighbourhoods are.

    BPDA rule: the gradient of the same computation without rounding. See `transforms.non_local_means`; the defaults are
    those of the paper for ImageNet.

    Args:
        search: side of the window of pixels that are averaged, odd.
        template: side of the neighbourhoods that are compared, odd.
        strength: the difference of two neighbourhoods, in levels of 255, at which the weight has fallen to 1/e.

    Raises:
        InputError: a window is even or the strength is not positive; on a call, the images are smaller than the
            windows.
    """
    if search < 1 or template < 1 or search % 2 == 0 or template % 2 == 0 or not strength > 0:
        got = f"search {search}, template {template}, strength {strength}"
        raise InputError(f"non_local_means needs odd windows and a positive strength, got {got}")
    return defended(model, lambda x, _: denoiser.non_local_means(x, search, template, float(strength)), non_local_means)
