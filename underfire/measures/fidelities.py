"""Fidelity: by how much the probability of a class falls when the pixels that a map calls relevant are removed.

Source: Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 2017. The
removal of any pixels lowers the probability, by an amount that depends on what replaces them and on the shape of the
hole. Therefore several shares and fills are tried, and as a control, other pixels than those of the map are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attribution.fills import FILLS
from underfire.attribution.variants import Model
from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.maps import informative
from underfire.measures.removal import Variant, VariantScores, pixel_order, score_variants
from underfire.validate import default_generator

_PAPER = (
    "Samek, Binder, Montavon, Lapuschkin and Müller, Evaluating the Visualization of What a Deep Neural Network Has "
    "Learned, IEEE TNNLS 2017"
)
SHARES = (0.05, 0.1, 0.2)
CONTROLS = ("shifted", "pixels")


@dataclass(frozen=True)
class Removal:
    """The change of the probability of the class when pixels are removed.

    Attributes:
        shares: the shares of the pixels that were removed.
        fills: what replaced them.
        drop: by how much the probability fell, `[B, shares, fills]`; nan where the map is constant or not finite.
        control: the mean drop when other pixels were removed instead, `[B, shares, fills]`.
    """

    shares: tuple[float, ...]
    fills: tuple[str, ...]
    drop: Tensor
    control: Tensor


def control_orders(
    order: Tensor, size: tuple[int, int], control: str, samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return random orders of the pixels, as controls of the map's order, int64 `[samples, B, H·W]`.

    Args:
        order: the order of the map, `[1, B, H·W]`.
        size: H and W.
        control: `"shifted"` shifts the map's order cyclically, so that the holes keep their shape; `"pixels"` takes
            single pixels at random, which lowers the probability more than a hole of the same area does.
        samples: how many orders are drawn.

    Raises:
        InputError: the control is unknown, or `samples` is below 1.
    """
    if control not in CONTROLS:
        raise InputError(f"control {control!r} is unknown; choices: {', '.join(CONTROLS)}")
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    generator, pixels = default_generator(generator, order.device), order.shape[2]
    if control == "pixels":
        noise = torch.rand(samples, pixels, generator=generator, device=generator.device, dtype=torch.float32)
        return noise.to(order.device).argsort(1).argsort(1)[:, None].expand(-1, order.shape[1], -1)
    shifts = torch.randint(pixels, (samples,), generator=generator, device=generator.device).tolist()
    grid = order[0].view(-1, *size)
    return torch.stack([grid.roll((s // size[1], s % size[1]), (1, 2)).flatten(1) for s in shifts])


def removal_variants(pixels: int, shares: Sequence[float], fills: Sequence[str], orders: int) -> list[Variant]:
    """Return the variants to evaluate: the whole image, then every share with every fill, for every order.

    Raises:
        InputError: a share is not in (0, 1], or there are no shares or no fills.
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not shares or not fills:
        raise InputError(f"shares must lie in (0, 1], such as 0.1, and fills be named, got {shares} and {fills}")
    sizes = [max(1, round(share * pixels)) for share in shares]
    return [Variant("", 0), *(Variant(f, k, order=o) for o in range(orders) for k in sizes for f in fills)]


def drops(
    found: VariantScores, variants: Sequence[Variant], m: Tensor, shares: Sequence[float], fills: Sequence[str]
) -> Removal:
    """Return the drops of probability from the scores `found` of `removal_variants`."""
    said = torch.stack([found[variant][1] for variant in variants[1:]], 1)
    fell = (found[variants[0]][1][:, None] - said).unflatten(1, (-1, len(shares), len(fills)))
    known = informative(m)[:, None, None].to(fell.device)
    drop, control = (torch.where(known, t, torch.nan) for t in (fell[:, 0], fell[:, 1:].mean(1)))
    return Removal(tuple(shares), tuple(fills), drop, control)


def removal(
    model: Model,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    fills: Sequence[str] = FILLS,
    control: str = "shifted",
    samples: int = 4,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Removal:
    """Return the drops of the probability of class `y` when relevant pixels, and as a control others, are replaced.

    Args:
        m: maps `[B, 1, h, w]`.
        shares: shares of the pixels, each in (0, 1].
        fills: what replaces them: `"black"`, `"mean"`, `"blur"`.
        control: which other pixels are replaced for comparison (see `control_orders`).
        samples: how many controls are averaged.

    Raises:
        InputError: an option is wrong, or the shapes do not fit. ModelError: the model returns NaN.
    """
    order = pixel_order(m, x)
    orders = torch.cat([order, control_orders(order, (x.shape[2], x.shape[3]), control, samples, generator)])
    variants = removal_variants(orders.shape[2], shares, fills, len(orders))
    return drops(score_variants(model, x, y, orders, variants, chunk), variants, m, shares, fills)


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(-1.0, 1.0))
def fidelity(
    model: Model,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    fills: Sequence[str] = FILLS,
    chunk: int | None = None,
) -> Tensor:
    """Return the mean drop of probability when the most relevant pixels are replaced, `[B]`, over shares and fills.

    Arguments and errors are those of `removal`. The result is nan where the map is constant or not finite.
    """
    order = pixel_order(m, x)
    variants = removal_variants(order.shape[2], shares, fills, 1)
    return drops(score_variants(model, x, y, order, variants, chunk), variants, m, shares, fills).drop.mean((1, 2))


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(-2.0, 2.0))
def fidelity_over_chance(
    model: Model,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    fills: Sequence[str] = FILLS,
    control: str = "shifted",
    samples: int = 4,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return `fidelity` minus the drop for the same holes elsewhere in the image, `[B]`; above 0 for a faithful map.

    Arguments and errors are those of `removal`. The result is nan where the map is constant or not finite.
    """
    found = removal(
        model, x, y, m, shares=shares, fills=fills, control=control, samples=samples, generator=generator, chunk=chunk
    )
    return (found.drop - found.control).mean((1, 2))
