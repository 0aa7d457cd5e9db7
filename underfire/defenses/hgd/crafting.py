"""The perturbed images that HGD is trained on: clean, with noise, FGSM and its iterations, of random size.

Source: Liao et al., Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser, CVPR 2018,
section 4.1; the list of attacks is that of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import log_odds
from underfire.ascent.threats import ball
from underfire.model import Classifier
from underfire.models import ensemble

ITERATIONS = (2, 4)
"""Number of steps of the iterated attacks on the ensemble."""


@dataclass(frozen=True)
class Perturbation:
    """One kind of perturbed images: `steps` gradient signs of size `eps / steps` on a network; without one, noise."""

    source: nn.Module | None
    steps: int


def kinds(sources: Sequence[Classifier]) -> list[Perturbation]:
    """Return the kinds: clean images, noise, FGSM on each network and on all, and FGSM iterated on all.

    They are the eight of the authors for three networks, and five for one.
    """
    together = sources[0] if len(sources) == 1 else ensemble(sources)
    single = [Perturbation(source, 1) for source in dict.fromkeys((*sources, together))]
    return [Perturbation(None, 0), Perturbation(None, 1), *single, *(Perturbation(together, t) for t in ITERATIONS)]


def perturbed(x: Tensor, among: Sequence[Perturbation], levels: int, generator: Generator) -> Tensor:
    """Return each image with a perturbation of a random kind and of a random size of 1 to `levels` grey levels.

    As in the authors' code, an attack leaves the class that its network predicts for the clean image.
    """
    device = generator.device
    kind = torch.randint(len(among), (len(x),), generator=generator, device=device).to(x.device)
    eps = torch.randint(1, levels + 1, (len(x),), generator=generator, device=device).to(x) / 255
    signs = torch.randint(2, x.shape, generator=generator, device=device).to(x) * 2 - 1
    result = x.clone()
    for i, wanted in enumerate(among):
        rows = (kind == i).nonzero().flatten()
        clean, size = x[rows], eps[rows]
        if wanted.steps == 0 or len(rows) == 0:
            continue
        if wanted.source is None:
            result[rows] = (clean + size[:, None, None, None] * signs[rows]).clamp(0, 1)
            continue
        with torch.no_grad():
            y = wanted.source(clean).argmax(1)
        recipe = Recipe(log_odds(), ball("linf", size), step_rule=size / wanted.steps, keep="last")
        result[rows] = ascend(wanted.source, clean, y, recipe, steps=wanted.steps)
    return result
