"""Search for the pair of entries with the largest product of sums; the search is exact and need not try all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

#: FIRST is the number of entries that are tried first, AT_ONCE how many pairs are compared at once, and STEPS the
#: number of bins of `_staircase_bound`.
FIRST, AT_ONCE, STEPS = 32, 2**22, 64


def best_pair(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entries `p != q` with the largest `(u_p + u_q) * (v_p + v_q)`, of pairs with two positive sums.

    A pair with entry `p` is worth at most `(u_p + max u) * (v_p + max v)`. The entries of the largest bounds are tried
    against each other first; only entries whose bound exceeds the best pair found so far can do better, and usually
    there are none. If there are many (as with independent `u` and `v`), a staircase above all points `(u_q, v_q)` gives
    closer bounds. Sums and products are rounded monotonically, so rounding makes no bound too small.

    Args:
        u: the first numbers, `[B, n]`; `-inf` excludes an entry.
        v: the second numbers, `[B, n]`.

    Returns:
        The two entries, int64 `[B, 2]`, and their value, `[B]`; the value is 0 if no pair has two positive sums, and
        the entries then have no meaning.
    """
    bound = _worth(u, v, u.amax(1, keepdim=True), v.amax(1, keepdim=True))
    first = bound.topk(min(FIRST, u.shape[1]), dim=1).indices
    pair, best = _best_among(u, v, first)
    # rows in which an entry that was not tried has a bound above the best pair
    open_ = ((bound > best[:, None]).sum(1) > first.shape[1]).nonzero().squeeze(1)
    if len(open_):
        bound = _staircase_bound(u[open_], v[open_])
        count = int((bound > best[open_, None]).sum(1).max())
        if count:
            # a better pair can only be among the `count` entries of the largest bounds
            second, worth = _best_among(u[open_], v[open_], bound.topk(count, dim=1).indices)
            better = worth > best[open_]
            pair[open_[better]], best[open_[better]] = second[better], worth[better]
    return pair, best


def _worth(u: Tensor, v: Tensor, other_u: Tensor, other_v: Tensor) -> Tensor:
    """Return `(u + other_u) * (v + other_v)`, with negative sums set to zero."""
    return (u + other_u).clamp_min_(0).mul_((v + other_v).clamp_min_(0))


def _staircase_bound(u: Tensor, v: Tensor) -> Tensor:
    """Return an upper bound of the value of each entry's pairs, `[B, n]`.

    The other entries are sorted into bins by `u`; a bin is bounded by its largest `u` and its largest `v`.
    """
    usable = u.isfinite()
    low = torch.where(usable, u, float("inf")).amin(1, keepdim=True)
    width = (u.amax(1, keepdim=True) - low).clamp_min(torch.finfo(u.dtype).tiny)
    bins = torch.where(usable, (u - low) / width * STEPS, 0).long().clamp_(0, STEPS - 1)
    empty = torch.full((len(u), STEPS), float("-inf"), dtype=u.dtype, device=u.device)
    corner_u, corner_v = (empty.scatter_reduce(1, bins, values, "amax") for values in (u, v))
    bound = torch.zeros_like(u)
    for k in range(STEPS):
        bound = torch.maximum(bound, _worth(u, v, corner_u[:, k : k + 1], corner_v[:, k : k + 1]))
    return bound


def _best_among(u: Tensor, v: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best pair of the `entries` `[B, m]` and its value; all pairs are tried, AT_ONCE at a time."""
    u, v = u.gather(1, entries), v.gather(1, entries)
    count = entries.shape[1]
    best = u.new_zeros(len(u))
    pair = entries.new_zeros(len(u), 2)
    for start in range(0, count, rows := max(1, AT_ONCE // max(1, len(u) * count))):
        part = slice(start, min(start + rows, count))
        worth = _worth(u[:, part, None], v[:, part, None], u[:, None], v[:, None])
        worth.diagonal(start, 1, 2).zero_()  # an entry does not form a pair with itself
        value, place = worth.flatten(1).max(1)
        better = value > best
        best = torch.where(better, value, best)
        found = torch.stack([start + place // count, place % count], dim=1)
        pair = torch.where(better[:, None], found, pair)
    return entries.gather(1, pair), best
