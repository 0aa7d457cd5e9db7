"""Take steps of the optimiser of a mask, through which attacks differentiate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from underfire.ascent.moves import Move, adam
from underfire.attribution.gradients import check_double_backward, wide_shift
from underfire.hooks import bypass_cache, capture_relu_rule, frozen, twice_differentiable, wide_relu
from underfire.interpreters.mask.game import Drawn, MaskGame
from underfire.validate import default_generator, require_finite

ADAM = adam()


def run_seed(generator: torch.Generator | None, device: torch.device) -> tuple[torch.device, int]:
    """Return device and seed of the generator that a whole optimisation begins with, for every chunk of images."""
    source = default_generator(generator, device)
    return source.device, int(torch.randint(2**62, (), generator=source, device=source.device))


def mask_step(
    game: MaskGame,
    m: Tensor,
    state: Any = None,
    *,
    drawn: Drawn | None = None,
    step_size: float = 0.1,
    move: Move = ADAM,
    double_backward: str = "exact",
) -> tuple[Tensor, Any]:
    """Take one step of the optimiser on the masks, each image by itself, and clip them to `[0, 1]`.

    If the images of the game, `m` or the state require a gradient, the result carries a graph to them, by which ADV²
    reaches the image. Detach the tensors that count as constant.

    Args:
        game: the objective.
        m: masks `[B, 1, h, w]`.
        state: the state of the move after the last step; None before the first.
        drawn: the result of `game.draw`; None means no jitter and no noise.
        step_size: length of the step.
        move: Adam, or `moves.plain()` for the virtual step of ADV².
        double_backward: how the gradient of the masks is differentiated again where the result carries a graph: by
            back-propagating twice, `"exact"` or `"smooth"`, or by a difference of two gradients,
            `"finite_difference"` (see `attribution.gradients.input_gradient`).

    Returns:
        The new masks and the new state.

    Raises:
        Unsupported: `double_backward` is unknown.
    """
    check_double_backward(double_backward)
    attached = torch.is_grad_enabled() and (game.x.requires_grad or m.requires_grad)
    with frozen(game.model), torch.enable_grad():
        point = m if attached and m.requires_grad else m.detach().requires_grad_(True)
        g = _gradient(game, point, drawn, double_backward if attached else None)
        direction, state = move.update(g, state if state is not None else move.init(point.detach()))
        start = point if attached and m.requires_grad else point.detach()
        return (start - step_size * direction).clamp(0, 1), state


def optimise(game: MaskGame, steps: int | None, step_size: float, generator: torch.Generator) -> Tensor:
    """Return the masks after all steps of the optimiser, `[B, 1, h, w]`; None is the number of steps of the variant.

    Raises:
        ModelError: the model's gradient is NaN or infinite.
    """
    m, state = game.start(), None
    for number in range(game.variant.steps if steps is None else steps):
        m, state = mask_step(game, m, state, drawn=game.draw(generator), step_size=step_size)
        if number == 0:
            require_finite(m)  # fail at once, not after hundreds of steps
    return require_finite(m)


def _gradient(game: MaskGame, m: Tensor, drawn: Drawn | None, double_backward: str | None) -> Tensor:
    """Return the gradient of the objective at masks that require one; if `double_backward` is None, without a graph."""
    # Objectives of different images are independent, so the gradient of their sum holds that of each.
    if double_backward is None:
        return torch.autograd.grad(game.objective(m, drawn).sum(), m)[0]
    if double_backward == "finite_difference":
        (g,) = torch.autograd.grad(game.penalty(m).sum(), m, create_graph=True)
        return g + cast(Tensor, _OfScore.apply(m, game.x, game.null, game, drawn))
    with ExitStack() as stack:
        stack.enter_context(twice_differentiable())
        if double_backward == "smooth":
            stack.enter_context(wide_relu())
            stack.enter_context(bypass_cache(game.model))
        return torch.autograd.grad(game.objective(m, drawn).sum(), m, create_graph=True)[0]


class _OfScore(torch.autograd.Function):
    """The gradient of the score with respect to the masks, whose own derivative is a difference of two gradients.

    The derivative of `v · (d score / d m)` with respect to masks, images and null images is the derivative along `v`, a
    direction of the masks, of the gradients with respect to all three, because second derivatives commute. The
    difference costs one more forward and backward pass, and its memory is that of one pass.
    """

    @staticmethod
    def forward(ctx: Any, m: Tensor, x: Tensor, null: Tensor, game: MaskGame, drawn: Drawn | None) -> Tensor:
        slopes_at = capture_relu_rule(_slopes_at(game, drawn))
        before = slopes_at(m, x, null)
        ctx.save_for_backward(m, x, null, *before)
        ctx.game, ctx.slopes_at = game.detach(), slopes_at
        return before[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        m, x, null, *before = ctx.saved_tensors
        # The shift of the masks is one that changes the images by as much as `wide_shift` says.
        _, d = wide_shift(ctx.game.spread(grads[0]))
        shift = torch.where(d.isfinite(), d * grads[0], 0).to(m.dtype)
        after = ctx.slopes_at(m + shift, x, null)
        return *((one - other) / d.to(one.dtype) for one, other in zip(after, before, strict=True)), None, None


def _slopes_at(game: MaskGame, drawn: Drawn | None) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function of masks, images and null images that returns the gradients of the score in each."""

    def slopes_at(*inputs: Tensor) -> tuple[Tensor, ...]:
        with frozen(game.model), torch.enable_grad(), bypass_cache(game.model):
            m, x, null = (t.detach().requires_grad_(True) for t in inputs)
            return torch.autograd.grad(replace(game, x=x, null=null).score(m, drawn).sum(), (m, x, null))

    return slopes_at
