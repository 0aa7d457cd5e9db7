"""Infidelity: the error of a map as a prediction of how known changes of the image change the score of a class.

Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019:
`INFD(Φ, f, x) = E_I [(Iᵀ Φ − (f(x) − f(x − I)))²]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.attribution.fills import fill_image
from underfire.attribution.variants import Model, class_scores
from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import as_map, ratio, wide
from underfire.measures.maps import resize
from underfire.validate import default_generator

_PAPER = "Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019"
PERTURBATIONS = ("noise", "squares")


def squares(samples: int, size: tuple[int, int], patch: int, generator: torch.Generator) -> Tensor:
    """Return masks with one square of `patch` pixels at a random place, bool `[samples, 1, H, W]`.

    Raises:
        InputError: the square does not fit into the image.
    """
    if not 1 <= patch <= min(size):
        raise InputError(f"patch must be from 1 to {min(size)}, the shorter side of the image, got {patch}")
    inside = []
    for side in size:
        first = torch.randint(side - patch + 1, (samples, 1), generator=generator, device=generator.device)
        places = torch.arange(side, device=generator.device)
        inside.append((places >= first) & (places < first + patch))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


@card("measure", paper=_PAPER, table="maps", higher_is_better=False)
def infidelity(
    model: Model,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    perturbation: str = "squares",
    samples: int = 64,
    noise: float = 0.003,
    patch: int | None = None,
    fill: str = "black",
    scaled: bool = True,
    probability: bool = False,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return the mean squared error with which a map predicts changes of the score, `[B]`, in squared logits.

    The two kinds of change `I` of the image suit two kinds of maps. `"noise"` subtracts Gaussian noise `I`, one value
    for all channels of a pixel; the signed gradient, summed over channels, predicts the change of score. `"squares"`
    replaces a square by the fill: `I` is 1 there and 0 elsewhere, and the contributions of the pixels predict the
    change of score, such as gradient times input or integrated gradients. Noisy images are not clipped to the box.

    Args:
        m: maps `[B, 1, h, w]`, signed; they are resized to the images.
        perturbation: `"noise"` or `"squares"`.
        samples: how many changes are drawn; they are the same for every image.
        noise: standard deviation of the noise. The default is below one grey level, because a network is not linear
            over larger changes: at 0.1 the gradient of a MobileNet predicts no better than a random map.
        patch: side of the square in pixels; None is a quarter of the shorter side.
        fill: what replaces the square: `"black"`, `"mean"` or `"blur"`.
        scaled: whether each map is multiplied by the factor that minimises its error, `E[Iᵀ Φ Δf] / E[(Iᵀ Φ)²]`, as in
            the authors' code, so that the unit of a map does not matter.
        probability: whether the score is the probability instead of the logit.

    Returns:
        The infidelity: 0 for a map that predicts every change, nan where the map is not finite. It is defined for a
        constant map, which ranks no pixel but predicts changes; a map of zeros predicts no change.

    Raises:
        InputError: an option is wrong, or the shapes do not fit. ModelError: the model returns NaN.
    """
    if perturbation not in PERTURBATIONS:
        raise InputError(f"perturbation {perturbation!r} is unknown; choices: {', '.join(PERTURBATIONS)}")
    if samples < 1 or noise <= 0:
        raise InputError(f"samples must be at least 1 and noise positive, got {samples} and {noise}")
    if x.dim() != 4 or len(as_map(m)) != len(x):
        raise InputError(f"images and maps do not fit: got {tuple(x.shape)} and {tuple(m.shape)}")
    size, generator = (x.shape[2], x.shape[3]), default_generator(generator, x.device)
    # draw the changes I
    if perturbation == "noise":
        drawn = torch.randn(samples, 1, *size, generator=generator, device=generator.device, dtype=torch.float32)
        changes = noise * drawn.to(x.device, wide(x).dtype)
    else:
        side = patch if patch is not None else max(1, min(size) // 4)
        changes = squares(samples, size, side, generator).to(x.device, wide(x).dtype)
    changes = torch.cat([torch.zeros_like(changes[:1]), changes])  # the first variant is the image itself
    empty = fill_image(x, fill)

    def show(image: Tensor, variant: Tensor) -> Tensor:
        if perturbation == "noise":
            return x[image] - changes[variant].to(x.dtype)
        return torch.where(changes[variant] > 0, empty[image], x[image])

    # measure how far the score falls at every change
    logit, chance = class_scores(model, x, y, len(changes), show, chunk)
    f = chance if probability else logit
    fell = f[:, :1] - f[:, 1:]
    # compare with the fall that the map predicts
    predicted = (resize(m, size).flatten(1) @ changes[1:].flatten(1).to(wide(m).dtype).T).to(fell.dtype)
    if scaled:
        # the factor is 0 where the map predicts no change
        beta = ratio((predicted * fell).sum(1), predicted.square().sum(1)).nan_to_num(0)
        predicted = predicted * beta[:, None]
    error = (predicted - fell).square().mean(1)
    finite = torch.isfinite(m).all(3).all(2)[:, 0]
    return torch.where(finite.to(error.device), error, torch.nan)
