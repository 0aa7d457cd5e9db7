"""Read the calls that normalise activations over an image: layer, group and instance norms, and root mean squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Normalised(NamedTuple):
    """A call that returns `gain · u / sqrt(mean(u²) + eps)`, plus a bias.

    Attributes:
        u: the input, less its mean if the call subtracts it.
        mean: the mean over what is normalised together, of a tensor shaped like `u`; it broadcasts against `u`.
        gain: broadcasts against `u`.
        eps: added to the mean square.
    """

    u: Tensor
    mean: Callable[[Tensor], Tensor]
    gain: Tensor | float
    eps: float

    def inverse(self) -> Tensor:
        """Return one over the root mean square, broadcastable against `u`."""
        return (self.mean(self.u.square()) + self.eps).rsqrt()


def normalised(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Normalised | None:
    """Return what a call of a torch function normalises, or None if it is another function."""
    if name not in _NAMES:
        return None
    given = dict(zip(_NAMES[name], args, strict=False)) | kwargs
    z, weight, eps = given["input"], given.get("weight"), given.get("eps", 1e-5)
    gain = 1.0 if weight is None else weight
    if name in ("layer_norm", "rms_norm"):
        places = tuple(range(-len(given["normalized_shape"]), 0))

        def mean(t: Tensor) -> Tensor:
            return t.mean(places, keepdim=True)

        if name == "rms_norm":
            return Normalised(z, mean, gain, torch.finfo(z.dtype).eps if given.get("eps") is None else eps)
        return Normalised(z - mean(z), mean, gain, eps)
    if name == "instance_norm" and not given.get("use_input_stats", True):  # stored statistics are constants
        return None
    groups = given["num_groups"] if name == "group_norm" else z.shape[1]

    def mean_of_group(t: Tensor) -> Tensor:
        of_group = t.unflatten(1, (groups, -1)).flatten(2).mean(2)
        each = of_group.repeat_interleave(t.shape[1] // groups, 1)
        return each.reshape(*each.shape, *[1] * (t.dim() - 2))

    if isinstance(gain, Tensor):
        gain = gain.reshape(-1, *[1] * (z.dim() - 2))
    return Normalised(z - mean_of_group(z), mean_of_group, gain, eps)


_NAMES = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "instance_norm": (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "use_input_stats",
        "momentum",
        "eps",
    ),
}
