"""Choose which parts of an image each sample shows and hides: designs of experiments for a regression on the parts."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.errors import Unsupported

DESIGNS = ("orthogonal", "paired", "independent")


def coalitions(samples: int, parts: int, design: str, generator: Generator) -> Tensor:
    """Return which parts every sample shows, bool `[samples, parts]`; the first sample shows all.

    In every design, all samples but the first show each part with probability 1/2.

    * `"independent"` draws all entries independently.
    * `"paired"` draws every second sample and lets its complement follow. An interaction of two parts, or of any even
      number, is equal in both samples and cancels, so that only interactions of odd order disturb the weights.
    * `"orthogonal"` takes the samples and their complements from Hadamard matrices, with rows and columns permuted and
      the signs of columns flipped at random. Within one matrix and its complement, columns are orthogonal, so that the
      weight of one part does not disturb that of another. Such a block is an orthogonal array of strength 3 (Box and
      Wilson, On the Experimental Attainment of Optimum Conditions, JRSS B 1951).

    Args:
        samples: number of samples; with pairs, the second is the complement of the first and hides all parts.
        parts: number of parts.
        design: one of `DESIGNS`.
        generator: on the CPU.

    Raises:
        Unsupported: the design is unknown.
    """
    if design not in DESIGNS:
        raise Unsupported(f"design {design!r} is unknown; choices: {', '.join(DESIGNS)}")
    everything = torch.ones(1, parts, dtype=torch.bool)
    if design == "independent":
        drawn = torch.randint(0, 2, (samples - 1, parts), generator=generator).bool()
        return torch.cat([everything, drawn])
    pairs = -(-samples // 2) - 1
    if design == "paired":
        first = torch.randint(0, 2, (pairs, parts), generator=generator).bool()
    else:
        first = torch.cat([everything[:0], *_hadamard_blocks(pairs, parts, generator)])[:pairs]
    first = torch.cat([everything, first])
    return torch.stack([first, ~first], 1).flatten(0, 1)[:samples]


def _hadamard_blocks(rows: int, parts: int, generator: Generator) -> list[Tensor]:
    """Return permuted Hadamard matrices, bool, that together have at least `rows` rows."""
    order = 1 << max(parts - 1, 0).bit_length()
    # Sylvester's matrix: the parity of the bits that the row number and the column number have in common
    index = torch.arange(order)
    common = index[:, None] & index
    odd = torch.zeros_like(common)
    for bit in range(order.bit_length()):
        odd ^= common >> bit & 1
    blocks = []
    for _ in range(-(-rows // order)):
        # permute rows and columns, flip the signs of columns
        row_order, column_order = (torch.randperm(order, generator=generator) for _ in range(2))
        signs = torch.randint(0, 2, (parts,), generator=generator).bool()
        blocks.append(odd.bool()[row_order][:, column_order[:parts]] ^ signs)
    return blocks
