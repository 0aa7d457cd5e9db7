"""Randomized input sampling for explanation (Petsiuk, Das and Saenko, RISE, BMVC 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.variants import class_output, evaluate_variants
from underfire.catalog import card
from underfire.errors import InputError
from underfire.validate import default_generator


@card(
    "interpreter",
    paper="Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018",
    family="perturbation",
    differentiable=True,
    second_order=False,
)
def rise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    samples: int = 4000,
    cells: int = 7,
    shown: float = 0.5,
    output: str = "probability",
    chunk: int | None = None,
    memory: float = MEMORY,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Average random masks, weighted by the probability of class `y` of the masked image: `sum_i f(x M_i) M_i / (p N)`.

    A mask is a coarse grid of zeros and ones, enlarged bilinearly to a little more than the image and cropped at a
    random place. All images share the masks. The defaults are those of the re-implementation in TorchRay, with half as
    many masks. The authors' code takes 6,000 masks of 8 × 8 cells and shows a tenth of the cells, so few that a small
    network often sees nothing.

    Args:
        samples: number of masks, N.
        cells: rows and columns of the coarse grid, s.
        shown: the probability p that a cell shows the image; p is also the expected value of a mask.
        memory: MiB that one layer may read and write for a chunk; without effect if `chunk` is given.

    Returns:
        The map, `[B, 1, H, W]`: the mean of the output over masks that show the pixel.

    Raises:
        InputError: an option is out of range. ModelError: an output is NaN.
    """
    if samples < 1 or cells < 1:
        raise InputError(f"samples and cells must be at least 1, got {samples} and {cells}")
    if not 0 < shown <= 1:
        raise InputError(f"shown must be above 0 and at most 1, got {shown}")
    # draw the masks
    draw = default_generator(generator, x.device)
    coarse = (torch.rand(samples, cells, cells, generator=draw, device=draw.device, dtype=torch.float32) < shown).to(x)
    cell = [math.ceil(size / cells) for size in x.shape[2:]]
    i, j = (torch.randint(c, (samples,), generator=draw, device=draw.device).to(x.device) for c in cell)
    down, across = (_enlarge(cells, *sizes, like=x) for sizes in zip(x.shape[2:], cell, strict=True))

    def make(image: Tensor, sample: Tensor) -> Tensor:
        masks, which = sample.unique_consecutive(return_inverse=True)
        m = down[i[masks]] @ coarse[masks] @ across[j[masks]].mT
        return x[image] * m[which, None]

    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        # forward passes
        f = evaluate_variants(model, x, y, samples, make, class_output(output), chunk=chunk, memory=memory)
        # sum the coarse grids of all masks that are cropped at the same place, then enlarge the sums, which is linear
        empty, place = f.new_zeros(cell[0] * cell[1], cells * cells), i * cell[1] + j
        rows, columns = (enlarge.permute(1, 0, 2).flatten(1) for enlarge in (down, across))
        maps = x.new_zeros(len(x), *x.shape[2:])
        for b, weight in enumerate(f / (shown * samples)):
            total = empty.index_add(0, place, weight[:, None] * coarse.flatten(1)).view(*cell, cells, cells)
            maps[b] = rows @ total.transpose(1, 2).reshape(cell[0] * cells, -1) @ columns.T
        return maps[:, None]


def _enlarge(cells: int, size: int, cell: int, *, like: Tensor) -> Tensor:
    """Return the matrices that enlarge a line of cells bilinearly and crop it, `[cell, size, cells]`.

    Row by row, a matrix enlarges `cells` to the length of `cells + 1` cells of `cell` pixels each, and crops `size`
    pixels from one of the first `cell` places.
    """
    places = torch.arange(cell, dtype=torch.float32)[:, None] + torch.arange(size)
    source = (places + 0.5) * cells / ((cells + 1) * cell) - 0.5
    nearness = 1 - (source.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
    return nearness.clamp(min=0).to(like)
