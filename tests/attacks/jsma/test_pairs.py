"""The exact best pair, against all pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underfire.attacks.jsma import pairs
from underfire.attacks.jsma.pairs import best_pair


def brute_force(u: Tensor, v: Tensor) -> Tensor:
    worth = (u[:, :, None] + u[:, None]).clamp_min(0) * (v[:, :, None] + v[:, None]).clamp_min(0)
    worth.diagonal(0, 1, 2).zero_()
    return worth.flatten(1).amax(1)


def clouds(kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    u, noise = torch.randn(2, 6, 700, generator=generator, dtype=torch.float64)
    if kind == "opposed":
        return u, -u + 0.01 * noise
    if kind == "alike":
        return u, u + 0.01 * noise
    if kind == "heavy tails":
        return u**3, noise**3
    if kind == "line":  # nearly all pairs are worth nearly as much: nothing can be left out at once
        return u, 1 - u
    if kind == "few levels":
        return u.round(), noise.round()
    return u, noise


@pytest.mark.parametrize("kind", ["independent", "opposed", "alike", "heavy tails", "line", "few levels"])
@pytest.mark.parametrize("at_once", [2**22, 3000])
def test_no_pair_is_better(
    kind: str, at_once: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "AT_ONCE", at_once)
    u, v = clouds(kind, generator)
    out = torch.rand(u.shape, generator=generator) < 0.2
    u, v = u.masked_fill(out, float("-inf")), v.masked_fill(out, float("-inf"))
    pair, worth = best_pair(u, v)
    assert torch.equal(worth, brute_force(u, v))
    p, q = pair.unbind(1)
    each = torch.arange(6)
    assert torch.equal((u[each, p] + u[each, q]) * (v[each, p] + v[each, q]), worth)
    assert (p != q).all()


def test_few_entries_and_no_pair_at_all() -> None:
    off = float("-inf")
    u = torch.tensor([[1.0, 2.0], [1.0, off], [off, off], [1.0, -2.0], [-1.0, 4.0]])
    v = torch.tensor([[3.0, 1.0], [1.0, off], [off, off], [1.0, 1.0], [2.0, -1.0]])
    pair, worth = best_pair(u, v)
    assert worth.tolist() == [12, 0, 0, 0, 3]
    assert sorted(pair[4].tolist()) == [0, 1]
    assert best_pair(u[:, :1], v[:, :1])[1].tolist() == [0] * 5


def test_an_imagenet_image_takes_little_memory(generator: torch.Generator) -> None:
    u, v = torch.randn(2, 1, 150_528, generator=generator)
    pair, worth = best_pair(u, v)
    for entry in pair[0]:  # no partner of either is better
        value = (u + u[0, entry]).clamp_min(0) * (v + v[0, entry]).clamp_min(0)
        value[0, entry] = 0
        assert value.max() == worth[0]
