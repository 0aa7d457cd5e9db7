"""Corner cases (Wu et al., Deep Validation, DSN 2019): an attack without an attacker, by ordinary transformations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep
from underfire.ascent.parametric import ParametricThreat
from underfire.ascent.search import worst_of
from underfire.attacks.corner_cases.transformations import Draws, Transformation, draws_for, transformations
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import Unsupported
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, default_generator

_named = transformations


@dataclass(frozen=True)
class CornerCase(ParametricThreat):
    """Apply one of several transformations; `z` holds a strength for each of them, all but one of which are 0.

    Attributes:
        chosen: the transformations.
        numbers: their random numbers for every image.
    """

    chosen: tuple[Transformation, ...] = ()
    numbers: Draws | None = None
    norm = "corner_case"

    def take(self, index: Tensor) -> Self:
        """Return the threat for the images at `index`, int64 `[M]`."""
        numbers = None if self.numbers is None else self.numbers.take(index)
        return replace(super().take(index), numbers=numbers)

    def candidates(self, x: Tensor, strengths: int) -> Tensor:
        """Return every transformation at evenly spaced strengths up to eps, the mildest first, `[B or 1, count, T]`."""
        shares = torch.arange(1, strengths + 1, dtype=x.dtype, device=x.device) / strengths
        one_each = torch.eye(len(self.chosen), dtype=x.dtype, device=x.device)
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        return eps * (shares[:, None, None] * one_each).flatten(0, 1)

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the transformed images, `[B, C, H, W]`."""
        changed = x
        for number, transformation in enumerate(self.chosen):
            rows = (z[:, number] > 0).nonzero().squeeze(1)
            if len(rows):
                numbers = None if self.numbers is None else self.numbers.take(rows)
                new = transformation.apply(changed[rows], z[rows, number], numbers)
                changed = changed.index_copy(0, rows, new)
        return changed


@card(
    "attack",
    paper="Wu, Xu, Zhong, Lyu and King, Deep Validation: Toward Detecting Real-World Corner Cases for Deep Neural "
    "Networks, DSN 2019; Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and "
    "Perturbations, ICLR 2019",
    knowledge="black-box",
    norms=("corner_case",),
    goals=("untargeted",),
    random=True,
    atlas="AML.T0043.001",
    quick={"strengths": 1},
)
def corner_cases(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "corner_case",
    eps: float | Tensor = 1.0,
    transformations: str | tuple[str, ...] = "deep_validation",
    strengths: int = 10,
    keep: Keep = "success",
    chunk: int = 256,
    generator: Generator | None = None,
) -> Tensor:
    """Transform every image as its surroundings might, from mild to strong, until the model errs.

    Nobody needs to attack: rotated, moved, brightened or foggy images occur by themselves, and a detector should flag
    those that the model gets wrong. With one transformation and `strengths=1`, all images are transformed at strength
    `eps`, whatever the model says. `search_strength` finds the strength at which the model errs on a chosen share of
    the images, as in the paper, and `synthesise` returns these images.

    Args:
        eps: the largest strength, as a share of the stated ranges, within which people still agree on the label; one
            number or one per sample `[B]`. For noise, blur, fog and JPEG, 0.2, 0.4, ... 1 are the five severities of
            the corruption benchmarks.
        transformations: `"deep_validation"` (rotation up to 70 degrees, shear to 0.5, scale to 0.4, translation by
            0.64 of the sides, brightness by 0.95, contrast to 5, and complement), `"corruptions"` (noise, blur, fog and
            JPEG), or names. A number is another end of a range, as in `"rotation_-40"` or `"contrast_0.2"`, and a plus
            sign combines transformations at one strength, as in `"scale_0.6+rotation_30"`. The ranges suit digits; for
            other images, state those that keep the label.
        strengths: number of strengths that are tried, evenly spaced from 0 to eps, each with all transformations.
        keep: `"success"` returns the mildest transformation that fools the model; `"best"` returns that of the largest
            margin.

    Returns:
        The transformed images, shaped like `x`; where nothing fools the model, those of the largest margin.

    Raises:
        InputError: a transformation is unknown, or its range not possible. Unsupported: there is a goal.
    """
    if goal is not None:
        raise Unsupported("corner_cases has no goal: a transformation is not aimed at a class")
    domain_of(model).require_images("corner_cases")
    check_choice(("corner_case",), norm=norm)
    check_choice(("success", "best"), keep=keep)
    at_least_one(strengths=strengths, chunk=chunk)
    chosen = _named(transformations)
    check_inputs(model, x, y)
    threat = CornerCase(eps, chosen=chosen)
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    threat = replace(threat, numbers=draws_for(chosen, x, default_generator(generator, x.device)))
    with frozen(model):
        return worst_of(model, x, y, threat, threat.candidates(x, strengths), keep=keep, chunk=chunk)
