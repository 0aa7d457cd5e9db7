"""Meaningful perturbations (Fong and Vedaldi, Interpretable Explanations of Black Boxes, ICCV 2017): MASK in ADV²."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, in_chunks, resolve_chunk
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.errors import InputError, ModelError
from underfire.hooks import frozen
from underfire.interpreters.mask.game import mask_game, mask_step
from underfire.validate import default_generator, require_finite

_LEAST = 1e-4  # probability that the whole image must change


@card(
    "interpreter",
    paper="Fong and Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017",
    family="perturbation",
    differentiable=False,
    second_order=True,
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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Find the smallest region whose blurring makes class `y` improbable, or which alone keeps it probable.

    Every image has its own mask, objective and state of Adam; images only share the passes. The map is not
    differentiable in `x`; an attack on it differentiates single steps (see `mask_step`).

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
        fill: what replaces deleted pixels; None is the variant's blurred image. If blurring does not change the class,
            as with large strokes on a plain background, the map is empty.
        cells: rows of the mask; None is an eighth of the image's rows, at least 7.
        generator: source of jitter and noise, which all images share.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the mask: 1 for important pixels (deleted, or kept in preservation), 0
        for the others.

    Raises:
        InputError: steps or step_size are out of range. Unsupported: the variant or the game is unknown. ModelError:
            the model's gradient is NaN, or no image's probability changes when everything is replaced.
    """
    if steps is not None and steps < 0:
        raise InputError(f"steps must be >= 0, got {steps}")
    if not 0 < step_size < float("inf"):
        raise InputError(f"step_size must be a positive length, such as 0.1, got {step_size:g}")
    source = default_generator(generator, x.device)
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))  # every chunk begins with it

    def explain(index: Tensor) -> Tensor:
        # each chunk has its own game, with the same random numbers
        part = x.detach()[index.to(x.device)]
        current = mask_game(model, part, y[index.to(y.device)], variant=variant, game=game, fill=fill, cells=cells)
        source_of_chunk = torch.Generator(source.device).manual_seed(seed)
        with frozen(model):
            m, state = current.start(), None
            for number in range(current.variant.steps if steps is None else steps):
                m, state = mask_step(current, m, state, drawn=current.draw(source_of_chunk), step_size=step_size)
                if number == 0:
                    require_finite(m)  # fail at once, not after hundreds of steps
        return require_finite(m if current.preserve else 1 - m)

    with frozen(model), torch.no_grad():
        class_score(model(x[:1]).expand(len(x), -1), y)
    size = resolve_chunk(model, x, chunk, memory, gradients=True)
    _require_change(model, x.detach(), y, size, variant=variant, game=game, fill=fill, cells=cells)
    return in_chunks(explain, len(x), size)


@torch.no_grad()
def _require_change(model: nn.Module, x: Tensor, y: Tensor, chunk: int, **options: Any) -> None:
    """Raise ModelError if no image's probability changes where everything is replaced, so that no mask matters."""

    def change(index: Tensor) -> Tensor:
        game = mask_game(model, x[index.to(x.device)], y[index.to(y.device)], **options)
        whole = torch.ones(len(index), 1, game.rows.shape[1], game.columns.shape[1]).to(x)
        with frozen(model):
            return (game.probability(whole) - game.probability(0 * whole)).abs()

    changes = in_chunks(change, len(x), chunk)
    if len(x) and float(changes.max()) <= _LEAST:
        raise ModelError(
            f"the probability of the class changes by at most {float(changes.max()):.1g} when the whole image is "
            "replaced, so that no mask explains it; give another fill, such as 'black'"
        )
