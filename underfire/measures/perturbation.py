"""Size of a perturbation, measured on inputs `x` and `x_adv` `[B, ...]`, in units of their values."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.domains import IMAGES, Domain
from underfire.errors import InputError
from underfire.measures.arrays import require_same_shape, wide

_PAPER = "Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017"


def _difference(x: Tensor, x_adv: Tensor) -> Tensor:
    require_same_shape(x, x_adv)
    return (wide(x_adv) - wide(x)).flatten(1)


@card("measure", paper=_PAPER, norms=("linf",), table="rows", higher_is_better=True)
def linf(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return the largest change of any feature, `[B]`."""
    return _difference(x, x_adv).abs().amax(1)


@card("measure", paper=_PAPER, norms=("l2",), table="rows", higher_is_better=True)
def l2(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return the Euclidean length of the change, `[B]`."""
    return torch.linalg.vector_norm(_difference(x, x_adv), dim=1)


@card("measure", paper=_PAPER, norms=("l1",), table="rows", higher_is_better=True)
def l1(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return the sum of the absolute changes, `[B]`."""
    return _difference(x, x_adv).abs().sum(1)


@card("measure", paper=_PAPER, norms=("l0",), table="rows", higher_is_better=True)
def l0(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return how many features changed at all, `[B]`; a pixel of three channels counts up to three times."""
    changed = _difference(x, x_adv) != 0
    return changed.sum(1).to(wide(x).dtype)


@card("measure", paper=_PAPER, norms=("l0",), table="rows", higher_is_better=True)
def l0_pixels(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return how many pixels changed in any channel, `[B]`.

    Raises:
        InputError: `x` and `x_adv` are not images `[B, C, H, W]` of one shape.
    """
    require_same_shape(x, x_adv)
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
def in_box(x_adv: Tensor, *, domain: Domain = IMAGES) -> Tensor:
    """Return whether every feature of a sample lies in the box, without tolerance, bool `[B]`; NaN does not.

    Args:
        domain: the kind of input, whose box counts; that of images is [0, 1].
    """
    return domain.contains(x_adv).flatten(1).all(1)


def sizes(x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    """Return the size in every norm by name: `linf`, `l2`, `l1` and `l0`, each `[B]`."""
    return {measure.__name__: measure(x, x_adv) for measure in (linf, l2, l1, l0)}


def within(x: Tensor, x_adv: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Return whether the change is at most eps, bool `[B]`, with a tolerance for float32 rounding in sums over pixels.

    Args:
        norm: one of the four norms, `"pixels"` for the number of pixels that changed in any channel, or `"patch"` for
            their share of the image. A change in any other norm, such as a rotation, cannot be measured on two images;
            the result is then True.
    """
    size = sizes(x, x_adv).get(norm)
    if norm in ("pixels", "patch"):
        size = l0_pixels(x, x_adv) / (1 if norm == "pixels" else x.shape[2:].numel())
    if size is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    limit = torch.as_tensor(eps, dtype=size.dtype, device=size.device)
    return size <= limit * (1 + 1e-4) + 1e-6
