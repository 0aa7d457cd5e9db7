"""How large a perturbation is, measured on the images: `x` and `x_adv` are `[B, ...]`, in units of the pixel value."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import same_shape, wide

_PAPER = "Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017"


def _difference(x: Tensor, x_adv: Tensor) -> Tensor:
    same_shape(x, x_adv)
    return (wide(x_adv) - wide(x)).flatten(1)


@card("measure", paper=_PAPER, norms=("linf",), table="rows", higher_is_better=True)
def linf(x: Tensor, x_adv: Tensor) -> Tensor:
    """The largest change of any feature, `[B]`."""
    return _difference(x, x_adv).abs().amax(1)


@card("measure", paper=_PAPER, norms=("l2",), table="rows", higher_is_better=True)
def l2(x: Tensor, x_adv: Tensor) -> Tensor:
    """The Euclidean length of the change, `[B]`."""
    return torch.linalg.vector_norm(_difference(x, x_adv), dim=1)


@card("measure", paper=_PAPER, norms=("l1",), table="rows", higher_is_better=True)
def l1(x: Tensor, x_adv: Tensor) -> Tensor:
    """The sum of the absolute changes, `[B]`."""
    return _difference(x, x_adv).abs().sum(1)


@card("measure", paper=_PAPER, norms=("l0",), table="rows", higher_is_better=True)
def l0(x: Tensor, x_adv: Tensor) -> Tensor:
    """How many features changed at all, `[B]`; a pixel of three channels counts up to three times."""
    changed = _difference(x, x_adv) != 0
    return changed.sum(1).to(wide(x).dtype)


@card("measure", paper=_PAPER, norms=("l0",), table="rows", higher_is_better=True)
def l0_pixels(x: Tensor, x_adv: Tensor) -> Tensor:
    """How many pixels changed in any channel, `[B]`, for images `[B, C, H, W]`."""
    same_shape(x, x_adv)
    if x.dim() != 4:
        raise InputError(f"images must be [B, C, H, W] to count pixels, got {tuple(x.shape)}")
    changed = (x_adv != x).any(1)
    return changed.flatten(1).sum(1).to(wide(x).dtype)


@card(
    "measure",
    paper="Carlini et al., On Evaluating Adversarial Robustness, 2019",
    table="rows",
    higher_is_better=True,
    limits=(0.0, 1.0),
)
def in_box(x_adv: Tensor) -> Tensor:
    """Whether every feature lies in [0, 1] exactly, bool `[B]`; NaN does not."""
    return ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)


def sizes(x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    """The perturbation in every norm: `linf`, `l2`, `l1` and `l0`, each `[B]`."""
    return {measure.__name__: measure(x, x_adv) for measure in (linf, l2, l1, l0)}


def within(x: Tensor, x_adv: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Whether the change is at most eps, bool `[B]`, up to the rounding of float32 in sums over many pixels.

    Beside the norms, `"pixels"` counts pixels that changed in any channel, and `"patch"` is their share of the image.
    What is not additive (a flow field, a rotation) cannot be measured on two images, and is taken as within.
    """
    size = sizes(x, x_adv).get(norm)
    if norm in ("pixels", "patch"):
        size = l0_pixels(x, x_adv) / (1 if norm == "pixels" else x[0, 0].numel())
    if size is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    limit = torch.as_tensor(eps, dtype=size.dtype, device=size.device)
    return size <= limit * (1 + 1e-4) + 1e-6
