"""Flow fields: identity, shift, a slow bilinear reading, the flow loss by hand."""

import math

import pytest
import torch

from tests.networks import rand
from underfire.ascent.flows import Flow, roughness, warp
from underfire.errors import InputError, Unsupported


@pytest.fixture
def x():
    return rand(2, 3, 6, 9, dtype=torch.float64)


def test_no_flow_is_the_identity_to_the_bit(x):
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(warp(x.to(dtype), torch.zeros(2, 2, 6, 9, dtype=dtype)), x.to(dtype))


def test_whole_pixels_are_a_shift(x):
    flow = torch.zeros(2, 2, 6, 9, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 2, -1
    shifted = warp(x, flow)
    assert torch.allclose(shifted[..., :-2, 1:], x[..., 2:, :-1], atol=1e-12)
    assert torch.allclose(shifted[..., -1, 1:], x[..., -1, :-1], atol=1e-12)  # the border goes on


def test_between_pixels_it_is_bilinear(x):
    flow = 1.3 * rand(2, 2, 6, 9, seed=1, dtype=torch.float64)
    warped = warp(x, flow)
    for b, i, j in [(0, 1, 2), (1, 3, 5), (0, 5, 8)]:
        v, u = min(i + flow[b, 0, i, j].item(), 5), min(j + flow[b, 1, i, j].item(), 8)
        expected = 0
        for q in range(6):
            for p in range(9):
                expected = expected + max(0, 1 - abs(v - q)) * max(0, 1 - abs(u - p)) * x[b, :, q, p]
        assert torch.allclose(warped[b, :, i, j], expected)


def test_its_gradient_is_exact(x):
    flow = 0.2 + 0.5 * rand(2, 2, 6, 9, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: warp(x[:1, :1], f), flow[:1].requires_grad_())
    zero = torch.zeros_like(flow, requires_grad=True)  # the values are put right there, the gradient stays
    assert torch.autograd.grad(warp(x, zero).square().sum(), zero)[0].abs().sum() > 0


def test_the_flow_loss_by_hand():
    """One pixel displaced by (3, 4): four neighbours at distance 5, each pair counted twice; in a corner, two."""
    flow = torch.zeros(3, 2, 5, 5, dtype=torch.float64)
    flow[0, :, 2, 2] = flow[1, :, 0, 0] = torch.tensor([3.0, 4.0], dtype=torch.float64)
    flow[2] = 7  # all alike
    assert torch.allclose(roughness(flow, smoothing=0), torch.tensor([40.0, 20.0, 0.0], dtype=torch.float64))
    assert torch.allclose(roughness(flow), roughness(flow, smoothing=0), atol=0.01)
    assert torch.equal(roughness(torch.zeros(1, 2, 4, 4)), torch.zeros(1))
    assert math.isfinite(torch.autograd.functional.jacobian(roughness, torch.zeros(1, 2, 4, 4)).sum())


def test_the_bound_holds_per_pixel_and_mask(x):
    mask = torch.zeros(6, 9, dtype=torch.float64)
    mask[2:4] = 1
    threat = Flow(torch.tensor([0.0, 1.5]), mask)
    z = threat.random_start(x, torch.Generator().manual_seed(0))
    assert (z.abs() <= 1.5).all()
    assert not z[0].any()
    assert not (z[1] * (1 - mask)).any()
    assert threat.project(x, z + 9).amax() == 1.5
    assert torch.equal(threat.apply(x, threat.start(x)), x)
    with pytest.raises(Unsupported, match="two images"):
        threat.size(x, x)
    with pytest.raises(InputError, match="eps must be"):
        Flow(-1.0).check(x)
