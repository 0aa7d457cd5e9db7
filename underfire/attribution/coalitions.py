"""Which parts of an image are shown together: plans for regressions on parts shown and hidden."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.errors import Unsupported

DESIGNS = ("orthogonal", "paired", "independent")


def coalitions(samples: int, parts: int, design: str, generator: Generator) -> Tensor:
    """A plan, bool `[samples, parts]`: True shows a part. The first sample shows all.

    Every other sample by itself is a fair coin for every part, in all designs.

    `"independent"` tosses them all. `"paired"` follows each by its opposite: what depends on two parts together, or
    four, is the same in both and falls out of their difference, so that only odd interactions disturb the weights.
    `"orthogonal"` takes the pairs from Hadamard matrices with rows and columns drawn and signs tossed: within a block
    no weight disturbs another either. Such folded blocks are orthogonal arrays of strength 3 (Box and Wilson, On the
    Experimental Attainment of Optimum Conditions, JRSS B 1951).

    Args:
        samples: rows of the plan; the second is the opposite of the first where there are pairs.
        parts: columns of the plan.
        design: one of `DESIGNS`.
        generator: source of all draws, on the CPU.

    Raises:
        Unsupported: the design is unknown.
    """
    if design not in DESIGNS:
        raise Unsupported(f"design {design!r} is unknown; choices: {', '.join(DESIGNS)}")
    whole = torch.ones(1, parts, dtype=torch.bool)
    if design == "independent":
        tossed = torch.randint(0, 2, (samples - 1, parts), generator=generator).bool()
        return torch.cat([whole, tossed])
    pairs = -(-samples // 2) - 1
    if design == "paired":
        first = torch.randint(0, 2, (pairs, parts), generator=generator).bool()
    else:
        first = torch.cat([whole[:0], *_blocks(pairs, parts, generator)])[:pairs]
    first = torch.cat([whole, first])
    return torch.stack([first, ~first], 1).flatten(0, 1)[:samples]


def _blocks(rows: int, parts: int, generator: Generator) -> list[Tensor]:
    """Blocks that together have at least so many rows, each a Hadamard matrix in another order."""
    order = 1 << max(parts - 1, 0).bit_length()
    index = torch.arange(order)
    both = index[:, None] & index
    odd = torch.zeros_like(both)
    for bit in range(order.bit_length()):
        odd ^= both >> bit & 1  # Sylvester's matrix: the parity of the bits that row and column share
    blocks = []
    for _ in range(-(-rows // order)):
        down, across = (torch.randperm(order, generator=generator) for _ in range(2))
        signs = torch.randint(0, 2, (parts,), generator=generator).bool()
        blocks.append(odd.bool()[down][:, across[:parts]] ^ signs)
    return blocks
