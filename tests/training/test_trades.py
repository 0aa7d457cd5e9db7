"""TRADES against a slow repetition of the authors' algorithm."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import underfire as uf
from tests.networks import randn, seeded
from tests.training.toys import X, Y, batches, close, descend, network, plan, seed_of, slope_at
from underfire.training.trades import divergence

EPS, STEPS, SIZE, BETA = 0.1, 3, 0.04, 6.0


def test_it_is_the_loop_of_the_authors() -> None:
    options = {"eps": EPS, "steps": STEPS, "step_size": SIZE, "beta": BETA}
    made = uf.training.trades(network(), (X, Y), **options, plan=plan(), generator=seeded(1))
    slow, generator = network(), seed_of(1)
    for x, y in batches(generator):
        clean = slow(x).detach().softmax(1)
        z = x + 0.001 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        z = z.clamp(0, 1)  # the authors begin outside the box, where there is noise
        for _ in range(STEPS):
            g = slope_at(z, lambda z, clean=clean: F.kl_div(slow(z).log_softmax(1), clean, reduction="sum"))
            z = (x + (z + SIZE * g.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        robust = F.kl_div(slow(z).log_softmax(1), slow(x).softmax(1), reduction="batchmean")
        descend(slow, F.cross_entropy(slow(x), y) + BETA * robust)
    assert close(made, slow)


def test_the_divergence_has_a_gradient_where_a_probability_vanishes() -> None:
    clean, other = 300 * randn(5, 4, seed=1), randn(5, 4, seed=2)
    clean.requires_grad_(True)
    value = divergence(clean, other)
    assert torch.autograd.grad(value.sum(), clean)[0].isfinite().all()
    plain = F.kl_div(other.log_softmax(1), (clean / 300).softmax(1), reduction="none").sum(1)
    assert torch.allclose(divergence(clean / 300, other), plain, atol=1e-6)
