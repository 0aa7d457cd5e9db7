"""Meaningful perturbations (Fong and Vedaldi, Interpretable Explanations of Black Boxes, ICCV 2017); MASK in ADV²."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, chunk_within, in_chunks
from underfire.attribution.scores import class_score, default_generator, require_finite
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.interpreters.mask.game import mask_game, mask_step


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
    """The smallest region whose blurring makes class `y` improbable, or whose keeping is enough for it.

    Every image has its own mask, loss and memory of Adam; only the passes are shared. The masks are not differentiable
    in `x`: an attack on them unrolls single steps, `mask_game.mask_step`.

    The published implementations disagree, and `variant` names one: `"fong"` (the authors'), `"adv2_v1"` and
    `"adv2_v2"` (the two of ADV², the second is what it attacks), `"gildenblat"` (the first in PyTorch); their numbers
    stand in `mask_variants.VARIANTS`. They are for images of 224 and masks of 28 × 28. At other sizes blurs and jitter
    follow the shorter side of the image, the weight of the area stays that of the whole mask, and that of the
    differences that of one pair of cells. Where the authors cut the image from a larger one, here its edge is repeated.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        variant: whose implementation.
        game: `"deletion"` or `"preservation"`.
        steps: how many iterations; None is as the variant has it, 300 to 500.
        step_size: length of a step of Adam.
        fill: what replaces the image, `"black"`, `"mean"`, `"blur"` or a grey; None is the variant's blurred image. A
            blur that leaves the class as it was, as it does large strokes on a plain ground, leaves the map empty.
        cells: rows of the mask; None is an eighth of the image's, at least 7.
        chunk: how many images go through the model at once; None is what `memory` allows.
        memory: what their layers' outputs may take, in MiB.
        generator: source of the jitter and the noise, which all images share.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the mask: 1 is deleted (or kept), so important, 0 is not.

    Raises:
        InputError: steps or step_size are out of their range. Unsupported: the variant or the game is unknown.
            ModelError: the model's gradient is NaN.
    """
    if steps is not None and steps < 0:
        raise InputError(f"steps must be >= 0, got {steps}")
    if not 0 < step_size < float("inf"):
        raise InputError(f"step_size must be a positive length, such as 0.1, got {step_size:g}")
    source = default_generator(generator, x.device)
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))  # so that chunks draw alike

    def explain(index: Tensor) -> Tensor:
        part = x.detach()[index.to(x.device)]
        played = mask_game(model, part, y[index.to(y.device)], variant=variant, game=game, fill=fill, cells=cells)
        chance = torch.Generator(source.device).manual_seed(seed)
        with frozen(model):
            m, state = played.start(), None
            for number in range(played.variant.steps if steps is None else steps):
                m, state = mask_step(played, m, state, drawn=played.draw(chance), step_size=step_size)
                if number == 0:
                    require_finite(m)  # not only after hundreds of steps in vain
        return require_finite(m if played.preserve else 1 - m)

    with frozen(model), torch.no_grad():
        class_score(model(x[:1]).expand(len(x), -1), y)
    if chunk is None:
        chunk = chunk_within(model, x, memory, gradients=True)
    return in_chunks(explain, len(x), chunk)
