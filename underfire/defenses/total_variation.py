"""Total-variation minimisation with dropped pixels, TVM (Guo et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended, uniform
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.rounding import replaced
from underfire.transforms.total_variation import minimise_total_variation
from underfire.validate import at_least_one


@card(
    "defense",
    paper="Guo, Rana, Cisse and van der Maaten, Countering Adversarial Images Using Input Transformations, ICLR 2018",
    differentiable=False,
    random=True,
)
def total_variation(
    model: Classifier,
    *,
    drop: float = 0.5,
    weight: float = 0.03,
    steps: int = 100,
    generator: Generator | None = None,
) -> Defended:
    """Drop random pixels, and replace the image by the simplest one that agrees with the others.

    Each channel of each pixel is kept with probability `1 - drop`. The new image minimises `½ |known · (z - x)|² +
    weight · TV(z)` with the isotropic total variation, as in the authors' code; it replaces all pixels. The solver is
    that of Chambolle and Pock for a whole batch, where the authors use split Bregman iterations for one image. BPDA
    rule: the gradient of the identity, with which Athalye et al. (ICML 2018) break the defence.

    Args:
        drop: probability that a pixel is dropped.
        weight: weight of the total variation, the paper's λ.
        steps: number of iterations of the solver.

    Raises:
        InputError: not 0 <= drop < 1, or the weight is not positive.
    """
    if not 0 <= drop < 1 or not weight > 0:
        raise InputError(f"total_variation needs 0 <= drop < 1 and a weight > 0, got {drop} and {weight}")
    at_least_one(steps=steps)

    def transform(x: Tensor, generator: Generator) -> Tensor:
        with torch.no_grad():
            known = (uniform(generator, x, *x.shape) >= drop).to(x)
            simple = minimise_total_variation(x, known, weight, steps).clamp(0, 1)
        return replaced(x, simple)

    return defended(model, transform, total_variation, generator)
