"""Compute the objective of masks of real-time saliency, and blend images with backgrounds under a mask.

Source: Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017, equation 2; Zhang et al.,
Interpretable Deep Learning under Fire, USENIX Security 2020, equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.transforms.blur import gaussian_blur_per_sample


@dataclass(frozen=True)
class Terms:
    """The weights λ1 to λ4 of the objective, and its other constants.

    The paper gives 10, 0.001, 5 and 0.3 for λ1 to λ4. The authors' code has another loss, with margins instead of
    probabilities. λ1 and λ2 are the numbers of the code, because as in the code the total variation is a sum and the
    area a mean; λ3 and λ4 are those of the paper.

    Attributes:
        smooth: λ1, weight of the total variation (the code has 0.005 times half of the variation).
        area: λ2, weight of the mean of the mask's values to the power `area_power` (the code has 8 and 0.3; in the
            paper the power is 1).
        area_power: a power below 1 makes values between 0 and 1 expensive, so that masks become sharp.
        destroy: λ3, weight of the probability of the class without the evidence.
        destroy_power: λ4, the power of that probability; below 1, small probabilities still count.
        noise: standard deviation of the noise that φ adds to the image, so that a mask cannot rely on tiny patterns.
            The code has 0.03 for images in -1 … 1, which is 0.015 here; a classifier that noise confuses needs less.
    """

    smooth: float = 0.005
    area: float = 8.0
    area_power: float = 0.3
    destroy: float = 5.0
    destroy_power: float = 0.3
    noise: float = 0.03


def total_variation(m: Tensor) -> Tensor:
    """Return the sum of squared differences of neighbouring values of each map `[B, 1, h, w]`, `[B]`."""
    down = (m[:, :, 1:] - m[:, :, :-1]).square().sum((1, 2, 3))
    return down + (m[:, :, :, 1:] - m[:, :, :, :-1]).square().sum((1, 2, 3))


def objective(m: Tensor, kept: Tensor, removed: Tensor, present: Tensor, terms: Terms) -> Tensor:
    """Return λ1 TV(m) + λ2 AV(m) - log f_c(φ(x; m)) + λ3 f_c(φ(x; 1 - m))^λ4 of every image, `[B]`.

    Args:
        m: masks `[B, 1, h, w]`.
        kept: log-probability of the class with the mask's pixels kept, `[B]`.
        removed: log-probability of the class with the mask's pixels removed, `[B]`.
        present: whether the class is in the image, bool `[B]`. If not, only the first two terms count, because the mask
            should keep nothing.
        terms: the weights.
    """
    shift = 5e-4  # as in the authors' code; keeps the slope of the power finite at zero
    area = (m + shift).pow(terms.area_power).mean((1, 2, 3))
    class_terms = terms.destroy * (terms.destroy_power * removed).exp() - kept
    return terms.smooth * total_variation(m) + terms.area * area + class_terms * present


def background(x: Tensor, generator: Generator) -> Tensor:
    """Draw the content of removed pixels, `[B, C, H, W]`: with equal probability the blurred image or a noisy colour.

    The blur is a Gaussian of 11 pixels in an image of 224, as in the authors' code. The colour is uniform in 0.5 ± 0.33
    and has noise of 0.11; both are twice as large as in the code, which uses the same numbers for images in -1 … 1.
    """
    size = (len(x), 1, 1, 1)
    blur = torch.rand(size, generator=generator, dtype=torch.float32) < 0.5
    colour = 0.5 + 0.66 * (torch.rand(len(x), x.shape[1], 1, 1, generator=generator, dtype=torch.float32) - 0.5)
    flat = colour.to(x) + 0.11 * torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
    sigma = torch.full((len(x),), 11 / 224 * min(x.shape[2:]), dtype=x.dtype, device=x.device)
    return torch.where(blur.to(x.device), gaussian_blur_per_sample(x, sigma), flat).clamp(0, 1)


def blend(x: Tensor, m: Tensor, background: Tensor, noise: Tensor) -> Tensor:
    """Return φ(x; m): the image with noise where the mask is 1, and `background` where it is 0."""
    m = F.interpolate(m, size=x.shape[2:], mode="bilinear", align_corners=False)
    return m * (x + noise).clamp(0, 1) + (1 - m) * background


def loss(
    model: nn.Module, x: Tensor, y: Tensor, m: Tensor, present: Tensor, terms: Terms, generator: Generator
) -> Tensor:
    """Return the objective of masks `m` for classes `y` of images `x`, `[B]`, by two passes for each image.

    Args:
        model: the classifier, frozen.
        m: masks `[B, 1, h, w]`, which carry the graph.
        present: whether the class is in the image, bool `[B]`.
        terms: the weights and the noise.
        generator: draws noise and backgrounds, on the CPU, so that they are the same on every device.
    """
    both, twice = torch.cat([x, x]), torch.cat([y, y])
    noise = terms.noise * torch.randn(both.shape, generator=generator, dtype=torch.float32).to(both)
    blended = blend(both, torch.cat([m, 1 - m]), background(both, generator), noise)
    answers = F.log_softmax(model(blended), 1).gather(1, twice[:, None]).squeeze(1)
    kept, removed = answers.chunk(2)
    return objective(m, kept, removed, present, terms)
