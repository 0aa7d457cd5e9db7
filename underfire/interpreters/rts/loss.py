"""What a mask of real-time saliency should be: the objective, and the blending of image and background.

Source: Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017, equation 2; Zhang et al.,
Interpretable Deep Learning under Fire, USENIX Security 2020, equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.transforms.camera import blurred


@dataclass(frozen=True)
class Terms:
    """The weights λ of the objective.

    The paper gives (from memory) 10, 0.001, 5 and 0.3, in this order. The authors' code has another loss, with margins
    instead of probabilities; from it come λ1 and λ2, which fit the sum and the mean that stand here, from the paper λ3
    and λ4.

    Attributes:
        smooth: λ1, of the total variation (their code has 0.005, of half of it).
        area: λ2, of the mean of the mask's entries to the power `area_power` (theirs are 8 and 0.3; a power of 1 is the
            mean of the equation).
        area_power: a power below 1 makes half-open masks dear, so that masks become sharp.
        destroy: λ3, of the class's probability without the evidence.
        destroy_power: λ4, the power of that probability; below 1 it still counts where it is small.
        noise: standard deviation of what φ adds to the image, so that a mask cannot rest on tiny patterns (their code
            has 0.03 for images in -1 … 1, so 0.015; a classifier that noise confuses needs less).
    """

    smooth: float = 0.005
    area: float = 8.0
    area_power: float = 0.3
    destroy: float = 5.0
    destroy_power: float = 0.3
    noise: float = 0.03


def total_variation(m: Tensor) -> Tensor:
    """The squared differences of neighbouring entries of maps `[B, 1, h, w]`, summed, `[B]`."""
    down = (m[:, :, 1:] - m[:, :, :-1]).square().sum((1, 2, 3))
    return down + (m[:, :, :, 1:] - m[:, :, :, :-1]).square().sum((1, 2, 3))


def objective(m: Tensor, kept: Tensor, lost: Tensor, real: Tensor, terms: Terms) -> Tensor:
    """λ1 TV(m) + λ2 AV(m) - log f_c(φ(x; m)) + λ3 f_c(φ(x; 1 - m))^λ4 of every image, `[B]`.

    Args:
        m: masks `[B, 1, h, w]`.
        kept: log-probability of the class where the mask is kept, `[B]`.
        lost: likewise where it is taken away.
        real: whether the class is in the image, bool `[B]`; of one that is not, nothing should be kept, so that only
            the first two terms count.
        terms: the weights.
    """
    small = 5e-4  # of their code: keeps the slope of the power finite at zero
    area = (m + small).pow(terms.area_power).mean((1, 2, 3))
    told = terms.destroy * (terms.destroy_power * lost).exp() - kept
    return terms.smooth * total_variation(m) + terms.area * area + told * real


def background(x: Tensor, generator: Generator) -> Tensor:
    """What replaces removed pixels, `[B, C, H, W]`: for half of the images a blur of them, for the others a colour.

    The blur is a Gaussian of 11 pixels in an image of 224, as in the authors' code; the colour is uniform in 0.5 ± 0.33
    with noise of 0.11, which is twice as wide: they have the same numbers for images in -1 … 1.
    """
    size = (len(x), 1, 1, 1)
    blur = torch.rand(size, generator=generator) < 0.5
    colour = 0.5 + 0.66 * (torch.rand(len(x), x.shape[1], 1, 1, generator=generator) - 0.5)
    flat = colour.to(x) + 0.11 * torch.randn(x.shape, generator=generator).to(x)
    sigma = torch.full((len(x),), 11 / 224 * min(x.shape[2:]), dtype=x.dtype, device=x.device)
    return torch.where(blur.to(x.device), blurred(x, sigma), flat).clamp(0, 1)


def blend(x: Tensor, m: Tensor, instead: Tensor, noise: Tensor) -> Tensor:
    """φ(x; m): the image, with a little noise, where the mask is one, and `instead` where it is zero."""
    m = F.interpolate(m, size=x.shape[2:], mode="bilinear", align_corners=False)
    return m * (x + noise).clamp(0, 1) + (1 - m) * instead


def loss(model: nn.Module, x: Tensor, y: Tensor, m: Tensor, real: Tensor, terms: Terms, generator: Generator) -> Tensor:
    """The objective of masks `m` for the classes `y` of images `x`, `[B]`; the model is asked twice per image.

    Args:
        model: the classifier, frozen.
        x: images.
        y: classes, int64 `[B]`.
        m: masks `[B, 1, h, w]`, which carry the graph.
        real: whether the class is in the image, bool `[B]`.
        terms: the weights, and the noise.
        generator: on the CPU, so that every device sees the same backgrounds.
    """
    both, twice = torch.cat([x, x]), torch.cat([y, y])
    noise = terms.noise * torch.randn(both.shape, generator=generator).to(both)
    looks = blend(both, torch.cat([m, 1 - m]), background(both, generator), noise)
    told = F.log_softmax(model(looks), 1).gather(1, twice[:, None]).squeeze(1)
    kept, lost = told.chunk(2)
    return objective(m, kept, lost, real, terms)
