"""IG-NORM and IG-SUM-NORM: the norm in closed form, and the training against a slow repetition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import underfire as uf
from tests.networks import half_space, rand, seeded
from tests.training.toys import X, Y, batches, close, descend, network, plan, seed_of, slope_at
from underfire.training.integrated_gradients_norm import attribution

EPS, STEPS, SIZE = 0.1, 2, 0.06


def test_the_norm_of_a_half_space_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is `(sigmoid(<w, z>) - y) w`; with many points its integral is the difference of the losses."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    model = half_space(w.reshape(1, 2, 2))
    x, shift, y = rand(3, 1, 2, 2, dtype=torch.float64), w.sign().reshape(1, 2, 2) * 0.05, torch.tensor([0, 1, 0])
    points = [x + k / 4 * shift for k in range(1, 5)]
    slopes = torch.stack([(z.flatten(1) @ w).sigmoid() - y for z in points]).mean(0)
    wanted = (slopes[:, None] * w * shift.flatten()).abs().sum(1)
    found = attribution.attribution_norm(model, x, x + shift, y, 4)
    assert torch.allclose(found, wanted)
    monkeypatch.setattr(attribution, "PASS", 3)  # the points in several passes
    assert torch.allclose(attribution.attribution_norm(model, x, x + shift, y, 4), wanted)
    # every coordinate moves the loss the same way, so that the norm is the length of the path of the loss
    losses = [F.cross_entropy(model(z), y, reduction="none") for z in (x, x + shift)]
    many = attribution.attribution_norm(model, x, x + shift, y, 2000)
    assert torch.allclose(many, (losses[1] - losses[0]).abs(), rtol=1e-3)


def slow_norm(body: Any, x: Tensor, z: Tensor, y: Tensor, points: int) -> Tensor:
    """The norm, one point after another."""
    total = torch.zeros_like(x)
    for k in range(1, points + 1):
        here = x + k / points * (z - x)
        here = here if here.requires_grad else here.requires_grad_(True)
        loss = F.cross_entropy(body(here), y, reduction="sum")
        total = total + torch.autograd.grad(loss, here, create_graph=True)[0] / points
    return ((z - x) * total).abs().flatten(1).sum(1)


@pytest.mark.parametrize("name", ["ig_norm", "ig_sum_norm"])
def test_it_is_the_loop_of_the_authors(name: str) -> None:
    options: dict[str, Any] = {"weight": 0.7, "points": 4, "points_of_attack": 2}
    sizes: dict[str, Any] = {"eps": EPS, "steps": STEPS, "step_size": SIZE}
    method = uf.find("training", name)
    made = method(network(), (X, Y), **options, **sizes, plan=plan(), generator=seeded(1))
    slow, generator = network(), seed_of(1)
    summed = name == "ig_sum_norm"
    for x, y in batches(generator):

        def aim(z: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            norm = 0.7 * slow_norm(slow, x, z, y, 2).sum()
            return norm + F.cross_entropy(slow(z), y, reduction="sum") if summed else norm

        z = (x + EPS * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            z = (x + (z + SIZE * slope_at(z, aim).sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        loss = F.cross_entropy(slow(z if summed else x), y)
        descend(slow, loss + 0.7 * slow_norm(slow, x, z, y, 4).mean())
    assert close(made, slow)
