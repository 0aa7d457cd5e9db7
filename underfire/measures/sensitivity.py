"""Sensitivity: how much a map changes when the image hardly changes.

Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019:
`SENS_MAX(Φ, x, r) = max over ‖δ‖ ≤ r of ‖Φ(x + δ) − Φ(x)‖`, here relative to `‖Φ(x)‖`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.attribution.chunks import image_chunk
from underfire.attribution.variants import Interpreter, Model
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.measures.arrays import as_map, check_images, ratio
from underfire.validate import default_generator


def maps_in_chunks(interpreter: Interpreter, model: Model, x: Tensor, y: Tensor, chunk: int) -> Tensor:
    """Return the maps of the images, `[B, 1, h, w]`, without a graph, computed for `chunk` images at a time."""
    with frozen(model), torch.no_grad():
        parts = zip(x.detach().split(chunk), y.split(chunk), strict=True)
        return torch.cat([as_map(interpreter(model, images, classes)) for images, classes in parts])


@card(
    "measure",
    paper="Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of Explanations, "
    "NeurIPS 2019",
    table="maps",
    higher_is_better=False,
)
def sensitivity_max(
    model: Model,
    x: Tensor,
    y: Tensor,
    interpreter: Interpreter,
    *,
    eps: float = 0.02,
    samples: int = 10,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return the largest relative change of a map, in L2, over a few random changes of the image, `[B]`.

    The result is a lower bound of the true maximum; an attack on the explanation can find a larger change. Changed
    images are not clipped to the box.

    Args:
        eps: the largest change of a feature; changes are drawn uniformly from `[-eps, eps]`.
        samples: how many changes are drawn; they are the same for every image.

    Returns:
        The sensitivity; nan where the map of the image is zero everywhere, or a map is not finite.

    Raises:
        InputError: an option is wrong, or the shapes do not fit.
    """
    check_images(x, y)
    if eps <= 0 or samples < 1:
        raise InputError(f"eps must be positive and samples at least 1, got {eps} and {samples}")
    generator, room = default_generator(generator, x.device), image_chunk(x, chunk)
    uniform = torch.rand(samples, *x.shape[1:], generator=generator, device=generator.device, dtype=torch.float32)
    changes = (eps * (2 * uniform - 1)).to(x)
    first = maps_in_chunks(interpreter, model, x, y, room).flatten(1)
    moved = []
    # pairs of an image and a change, as many at a time as the memory allows
    for pairs in torch.arange(len(x) * samples, device=x.device).split(room):
        image, sample = pairs // samples, pairs % samples
        maps = maps_in_chunks(interpreter, model, x[image] + changes[sample], y[image], room)
        moved.append(torch.linalg.vector_norm(maps.flatten(1) - first[image], dim=1))
    distance = torch.cat(moved).view(len(x), samples) if moved else first.new_zeros(0, samples)
    return ratio(distance.amax(1), torch.linalg.vector_norm(first, dim=1))
