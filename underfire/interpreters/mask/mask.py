"""Meaningful perturbations (Fong and Vedaldi, Interpretable Explanations of Black Boxes, ICCV 2017): MASK in ADV²."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, resolve_chunk
from underfire.attribution.gradients import check_double_backward
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.errors import InputError, ModelError
from underfire.hooks import folded, frozen
from underfire.interpreters.mask.game import MaskGame, mask_game
from underfire.interpreters.mask.steps import optimise, run_seed
from underfire.interpreters.mask.unrolled import UnrolledMask

_LEAST = 1e-4  # probability that the whole image must change


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the map of `mask`, and the probabilities that tell whether its game is won, `[B]`.

    `p_deleted` is the probability of the class where the region of the map is deleted, and `p_kept` where only this
    region is kept; the unchanged image has `p`. `won` is whether at most half of `p` is left after the deletion, or in
    the preservation game at least half of it is kept.
    """
    m = mask(model, x, y, **options)
    of_game = {name: options[name] for name in ("variant", "game", "fill", "cells") if name in options}
    size = resolve_chunk(model, x, options.get("chunk"), options.get("memory", MEMORY), gradients=True)
    with frozen(model), torch.no_grad():
        games = _games(model, x.detach(), y, size, **of_game)
        parts = [
            torch.stack([game.probability(kept) for kept in (torch.ones_like(part), 1 - part, part)], 1)
            for game, part in zip(games, m.split(size), strict=True)
        ]
    p, deleted, kept = torch.cat(parts).unbind(1)
    won = kept >= p / 2 if games[0].preserve else deleted <= p / 2
    return m, {"p": p, "p_deleted": deleted, "p_kept": kept, "won": won}


@card(
    "interpreter",
    paper="Fong and Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017",
    family="perturbation",
    differentiable=False,
    second_order=True,
    detailed=detailed,
    unrolled=UnrolledMask,
)
def mask(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    variant: str = "fong",
    game: str = "deletion",
    steps: int | None = None,
    step_size: float = 0.1,
    fill: str | float | None = None,
    cells: int | None = None,
    chunk: int | None = None,
    memory: float = MEMORY,
    double_backward: str = "finite_difference",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Find the smallest region whose blurring makes class `y` improbable, or which alone keeps it probable.

    Every image has its own mask, objective and state of Adam; images only share the passes. The map is not
    differentiable in `x`; an attack on it differentiates single steps (see `mask_step`), as `double_backward` says.

    The published implementations differ, and `variant` selects one: `"fong"` (the authors'), `"adv2_v1"` and
    `"adv2_v2"` (the two of ADV², which attacks the second), `"gildenblat"` (the first in PyTorch). Their constants are
    for images of 224 pixels and masks of 28 × 28 cells (see `variants.VARIANTS`). At other sizes, blurs and jitter are
    scaled by the shorter side of the image; the weight of the mean area and the weight of each pair of neighbouring
    cells stay the same. The authors crop the jittered image from a larger one; here its border is repeated.

    Args:
        variant: the published implementation to follow.
        game: `"deletion"` or `"preservation"`.
        steps: steps of Adam; None is the number of the variant, 300 to 500.
        step_size: step size of Adam.
        fill: what replaces deleted pixels: `"variant"`, the variant's blurred image, or a fill of
            `attribution.fills.fill_image`. None is the variant's blurred image, or for an image that keeps more than
            half of the class's probability under it, a wider blur, or black.
        cells: rows of the mask; None is 28 cells on the shorter side, as in the papers, or one for each pixel of an
            image that has fewer.
        generator: source of jitter and noise, which all images share.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the mask: 1 for important pixels (deleted, or kept in preservation), 0
        for the others. The game need not be won: `detailed` returns the probability that is left.

    Raises:
        InputError: steps or step_size are out of range. Unsupported: the variant or the game is unknown. ModelError:
            the model's gradient is NaN, or no image's probability changes when everything is replaced.
    """
    if steps is not None and steps < 0:
        raise InputError(f"steps must be >= 0, got {steps}")
    if not 0 < step_size < float("inf"):
        raise InputError(f"step_size must be a positive length, such as 0.1, got {step_size:g}")
    check_double_backward(double_backward)
    device, seed = run_seed(generator, x.device)
    with frozen(model), torch.no_grad():
        class_score(model(x[:1]).expand(len(x), -1), y)
    size = resolve_chunk(model, x, chunk, memory, gradients=True)
    games = _games(model, x.detach(), y, size, variant=variant, game=game, fill=fill, cells=cells)
    _require_change(games)
    masks = []
    for current in games:
        # each chunk has its own game, with the same random numbers
        chance = torch.Generator(device).manual_seed(seed)
        with frozen(model), folded(model, x):
            masks.append(current.shown(optimise(current, steps, step_size, chance)))
    return torch.cat(masks)


def _games(model: nn.Module, x: Tensor, y: Tensor, chunk: int, **options: Any) -> list[MaskGame]:
    """Return the games of the images, at most `chunk` images in each."""
    parts = zip(x.split(chunk), y.split(chunk), strict=True)
    with torch.no_grad():
        return [mask_game(model, images, classes, **options) for images, classes in parts]


@torch.no_grad()
def _require_change(games: list[MaskGame]) -> None:
    """Raise ModelError if no image's probability changes where everything is replaced, so that no mask matters."""
    changes = []
    for game in games:
        whole = torch.ones(len(game.x), 1, game.rows.shape[1], game.columns.shape[1]).to(game.x)
        with frozen(game.model):
            changes.append((game.probability(whole) - game.probability(0 * whole)).abs())
    change = torch.cat(changes)
    if len(change) and float(change.max()) <= _LEAST:
        raise ModelError(
            f"the probability of the class changes by at most {float(change.max()):.1g} when the whole image is "
            "replaced, so that no mask explains it; give another fill, such as 'black'"
        )
