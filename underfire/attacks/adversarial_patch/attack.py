"""Adversarial patch (Brown et al., NIPS Workshops 2017): one patch that fools the model on many images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves, step_rules
from underfire.ascent.objectives import log_success
from underfire.ascent.patches import (
    Shape,
    allowance,
    apply_patch,
    check_fits,
    paste,
    random_places,
    shape_mask,
)
from underfire.ascent.step import Targets
from underfire.ascent.threats import Threat
from underfire.ascent.universal import cross_fit_halves
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, check_classes, default_generator


@card(
    "attack",
    paper="Brown, Mané, Roy, Abadi and Gilmer, Adversarial Patch, NIPS Workshops 2017",
    knowledge="white-box",
    norms=("patch",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
    universal=True,
    quick={"steps": 1},
)
def adversarial_patch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "patch",
    eps: float | Tensor = 0.05,
    steps: int = 200,
    step_size: float = 0.05,
    shape: Shape | Tensor = "circle",
    rotation: float = 22.5,
    scale: float = 0.7,
    chunk: int = 32,
    held_out: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """Paste one patch onto all images at random places; each half of the batch gets the patch made from the other half.

    The patch is therefore judged on images that it was not made from. With goals, one patch is made for each goal
    class. `train_patch` returns the patch itself, `ascent.patches.apply_patch` pastes it onto other images, and
    `figures.printing.save_patch` writes a file to print.

    Args:
        goal: None leaves class `y` (ours; the paper has goals only).
        eps: the largest share of the image that the patch covers, one number or one per sample `[B]`.
        steps: number of gradient steps, each on `chunk` random images.
        step_size: size of Adam's first step, in pixel values; it falls linearly to a tenth.
        shape: `"circle"`, `"square"`, or a mask `[h, w]` of zeros and ones.
        rotation: largest angle of the patch in either direction, in degrees.
        scale: smallest side of the patch during training, as a share of the largest; the returned images show the
            largest.
        held_out: False makes the patch from all images and pastes it onto the same images.

    Raises:
        InputError: the patch is larger than the image, or an option is out of its range.
    """
    domain_of(model).require_images("adversarial_patch")
    generator = default_generator(generator, x.device)
    check_choice(("patch",), norm=norm)
    _check(model, x, y, goal, eps, steps, step_size, rotation, scale, chunk)
    x_adv = x.clone()
    if len(x) == 0:
        return x_adv
    radius = torch.as_tensor(eps, device=x.device).expand(len(x))
    # make a patch for each half and each goal class, and paste it onto the images of the other half
    for made, used, wanted in cross_fit_halves(y, goal, held_out, generator):
        patch, mask = train_patch(
            model,
            x[made],
            y[made],
            goal=None if wanted is None else wanted.expand(len(made)),
            eps=float(radius[used].max()),
            steps=steps,
            step_size=step_size,
            shape=shape,
            rotation=rotation,
            scale=scale,
            chunk=chunk,
            generator=generator,
        )
        x_adv[used] = apply_patch(x[used], patch, mask, eps=radius[used], rotation=rotation, generator=generator)
    return x_adv


def train_patch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    eps: float = 0.05,
    steps: int = 200,
    step_size: float = 0.05,
    shape: Shape | Tensor = "circle",
    rotation: float = 22.5,
    scale: float = 0.7,
    chunk: int = 32,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a patch `[C, h, w]` and its mask `[h, w]`, trained by Adam.

    Adam climbs the mean log-probability of success over random images and places. The arguments are those of
    `adversarial_patch`, except that eps is one number.
    """
    generator = default_generator(generator, x.device)
    _check(model, x, y, goal, eps, steps, step_size, rotation, scale, chunk)
    pixels = allowance(x, eps)
    mask = shape_mask(shape, int(pixels.max()) if len(x) else 0, x)
    check_fits(x, mask, pixels)
    patch = x.new_full((1, x.shape[1], *mask.shape), 0.5)
    if len(x) == 0 or not bool(pixels.any()):
        return patch[0], mask
    objective, move = log_success(), moves.adam()
    state, length = move.init(patch), step_rules.linear(step_size, step_size / 10)
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    with frozen(model), torch.enable_grad():
        for step in range(steps):
            # draw images and places
            rows = torch.randperm(len(x), generator=generator, device=x.device)[:chunk]
            scene, here = x[rows].detach(), targets.take(rows)
            places = random_places(scene, mask, pixels[rows], rotation=rotation, scale=scale, generator=generator)
            # forward and backward pass
            patch = patch.detach().requires_grad_(True)
            x_adv = paste(scene, patch[0], mask, places)
            logits = model(x_adv)
            check_classes(logits, here.y, here.goal)
            loss = objective(here.step(model, x_adv, logits)).mean()
            (gradient,) = torch.autograd.grad(loss, patch)
            # Adam's step
            direction, state = move.update(torch.nan_to_num(gradient, 0.0, 0.0, 0.0), state)
            patch = (patch.detach() + step_rules.current_step_size(length, step, steps) * direction).clamp(0, 1)
    return patch[0], mask


def _check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    goal: Tensor | None,
    eps: float | Tensor,
    steps: int,
    step_size: float,
    rotation: float,
    scale: float,
    chunk: int,
) -> None:
    """Raise InputError or DataError if an argument is out of its range."""
    at_least_one(steps=steps, chunk=chunk)
    if step_size <= 0 or rotation < 0 or not 0 < scale <= 1:
        raise InputError(
            f"step_size must be > 0, rotation >= 0 and scale in (0, 1], got {step_size}, {rotation} and {scale}"
        )
    check_inputs(model, x, y, goal)
    Threat(eps).check(x)
