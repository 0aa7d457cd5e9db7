"""Feature distillation, FD: JPEG with a quantisation table made for networks (Liu et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.jpeg import cosine_transforms, in_blocks
from underfire.transforms.rounding import rounded


@card(
    "defense",
    paper="Liu, Liu, Liu, Xu, Lin, Wang and Wen, Feature Distillation: DNN-Oriented JPEG Compression Against "
    "Adversarial Examples, CVPR 2019",
    differentiable=False,
)
def feature_distillation(
    model: Classifier,
    *,
    benign_step: float = 25.0,
    malicious_step: float = 30.0,
    table: tuple[float, ...] = (),
) -> Defended:
    """Quantise the cosine transform of each block of 8 x 8 pixels, finely only where natural images have their energy.

    A perturbation is spread over all 64 frequencies, so that a large step (defensive quantisation) removes most of it;
    the 16 frequencies that matter most for the accuracy on clean images get a smaller step. The constants are those of
    the authors' code, which quantises the levels 0 to 255 of red, green and blue without a change of colour space.
    BPDA rule: the gradient of the same computation without rounding, which is that of the identity and of the clipping.

    Args:
        benign_step: step of the 4 x 4 lowest frequencies, in levels of 255.
        malicious_step: step of all other frequencies.
        table: 64 steps, row by row from the lowest frequency, which replace both; `tuned_table` makes one from images.

    Raises:
        InputError: a step is not positive, or the table does not have 64.
    """
    low = torch.zeros(8, 8, dtype=torch.bool)
    low[:4, :4] = True
    steps = torch.tensor(table, dtype=torch.float64) if table else _steps(low.flatten(), benign_step, malicious_step)
    if steps.shape != (64,) or not bool((steps > 0).all()):
        raise InputError(f"feature_distillation needs 64 steps above 0, got {len(steps)} from {float(steps.min()):g}")

    def distilled(x: Tensor, _: Generator) -> Tensor:
        height, width = x.shape[2:]
        q = steps.to(x)
        planes = F.pad(255 * x, (0, -width % 8, 0, -height % 8), mode="replicate")
        levels = in_blocks(planes, lambda coefficients: rounded(coefficients / q) * q)
        return (levels[..., :height, :width] / 255).clamp(0, 1)

    return defended(model, distilled, feature_distillation)


def tuned_table(
    x: Tensor, *, benign_step: float = 25.0, malicious_step: float = 30.0, benign: int = 16
) -> tuple[float, ...]:
    """Return the 64 steps of `feature_distillation` for the images of a data set, as the paper tunes them.

    Args:
        x: clean images `[n, C, H, W]` in `[0, 1]`, whose sides are cut to multiples of 8.
        benign_step: step of the frequencies whose coefficients vary most over the blocks of the images.
        malicious_step: step of the others.
        benign: number of frequencies that vary most.

    Raises:
        InputError: there is no block of 8 x 8 pixels, or `benign` is not from 0 to 64.
    """
    height, width = x.shape[2] // 8 * 8, x.shape[3] // 8 * 8
    if not 0 <= benign <= 64 or len(x) * height * width == 0:
        raise InputError(f"tuned_table needs images of at least 8 x 8 pixels and benign from 0 to 64, got {benign}")
    spread = cosine_transforms(255 * x[..., :height, :width]).flatten(0, 1).double().std(0)
    chosen = torch.zeros(64, dtype=torch.bool)
    chosen[spread.topk(benign).indices.cpu()] = True
    return tuple(_steps(chosen, benign_step, malicious_step).tolist())


def _steps(benign: Tensor, benign_step: float, malicious_step: float) -> Tensor:
    """Return the step of each frequency, `[64]`."""
    steps = torch.full((64,), float(malicious_step), dtype=torch.float64)
    steps[benign] = float(benign_step)
    return steps
