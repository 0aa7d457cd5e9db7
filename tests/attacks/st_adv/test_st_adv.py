"""stAdv against a known displacement, and a slow loop that follows the paper."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand
from underfire.errors import Unsupported
from underfire.model import Classifier

SLOPE = 0.04


class Brightness(nn.Module):
    """Class 1 where the columns 3 to 8 are brighter by `SLOPE / 2` than those of the ramp."""

    def forward(self, x):
        lead = x[..., 3:9].mean((1, 2, 3)) - (0.2 + SLOPE * 5.5) - SLOPE / 2
        return torch.stack([torch.zeros_like(lead), 100 * lead], dim=1)


@pytest.fixture
def ramp():
    """Brightness grows by `SLOPE` per column: reading half a pixel further right is exactly enough."""
    return (0.2 + SLOPE * torch.arange(12, dtype=torch.float64)).expand(1, 1, 6, 12).contiguous()


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_it_succeeds_if_and_only_if_the_bound_allows(ramp, solver):
    model, y = Classifier(Brightness()), torch.tensor([0])
    options = {"solver": solver, "steps": 60}
    beyond = uf.attacks.st_adv(model, ramp, y, eps=0.51, **options)
    assert model(beyond).argmax(1) == 1
    assert (beyond - ramp).abs().max() <= 0.51 * SLOPE + 1e-9
    short = uf.attacks.st_adv(model, ramp, y, eps=0.49, **options)
    assert model(short).argmax(1) == 0
    assert torch.allclose((short - ramp)[..., 3:9], torch.tensor(0.49 * SLOPE, dtype=torch.float64), atol=1e-4)


@pytest.mark.slow
def test_the_smoothest_flow_is_found(ramp):
    """All pixels by the same half a pixel to the right: no two neighbours differ."""
    model, y = Classifier(Brightness()), torch.tensor([0])
    rough = uf.attacks.st_adv(model, ramp, y, keep="success", steps=200)
    smooth = uf.attacks.st_adv(model, ramp, y, keep="best", steps=200)
    assert model(smooth).argmax(1) == 1
    assert (smooth - ramp)[..., :-1].std() < 0.05 * SLOPE
    assert (smooth - ramp)[..., :-1].std() <= (rough - ramp)[..., :-1].std()


@pytest.mark.parametrize("keep", ["success", "best"])
def test_a_success_has_the_confidence_if_one_is_found(ramp, keep):
    """Half a pixel is a lead of 0; a lead of 1 needs a quarter of a pixel more."""
    model, y = Classifier(Brightness()), torch.tensor([0])
    options = {"keep": keep, "confidence": 1.0, "steps": 60}
    logits = model(uf.attacks.st_adv(model, ramp, y, eps=1.0, **options))[0]
    assert logits[1] - logits[0] >= 1
    # without the room for it, the nearest iterate is a success with a smaller lead
    logits = model(uf.attacks.st_adv(model, ramp, y, eps=0.6, **options))[0]
    assert 0 < logits[1] - logits[0] < 1


@pytest.mark.parametrize("targeted", [False, True])
def test_adam_as_the_paper_writes_it(network, targeted):
    model = network("smooth", torch.float64)
    x = rand(1, 3, 8, 10, dtype=torch.float64)
    y = model(x).argmax(1)
    t = model(x).topk(2).indices[:, 1]
    f = torch.zeros(1, 2, 8, 10, dtype=torch.float64, requires_grad=True)
    adam, tau, nearest = torch.optim.Adam([f], lr=0.1), 0.05, float("-inf")
    rows, columns = torch.meshgrid(torch.arange(8.0).double(), torch.arange(10.0).double(), indexing="ij")
    for _ in range(15):
        grid = torch.stack([(columns + f[0, 1]) / 4.5 - 1, (rows + f[0, 0]) / 3.5 - 1], dim=-1)[None]
        warped = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
        g = model(warped)[0]
        own = t if targeted else y
        lead = (torch.cat([g[:own], g[own + 1 :]]).max() - g[own]) * (-1 if targeted else 1)
        if lead > nearest:
            nearest, expected = lead.item(), warped.detach()
        if lead > 0:
            break
        loss = (-lead).clamp_min(0)
        for axis in (1, 2):
            d = f[0].diff(dim=axis)
            loss = loss + tau * 2 * (((d**2).sum(0) + 1e-6).sqrt() - 1e-3).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    ours = uf.attacks.st_adv(model, x, y, goal=t if targeted else None, solver="adam", steps=15, eps=10.0)
    assert torch.allclose(ours, expected, atol=1e-9)


def test_what_succeeds_costs_nothing_more(network):
    model = network()
    x = rand(4, 3, 9, 9)
    y = model(x).argmax(1)
    y[2:] = (y[2:] + 1) % 4  # wrong from the start: one pass finds out
    with model.counting() as count:
        x_adv = uf.attacks.st_adv(model, x, y, eps=1e-3, steps=5)
    assert count.forwards <= 4 + 2 * 4
    assert torch.equal(x_adv[2:], x[2:])


def test_only_what_the_mask_allows_moves(network, images):
    model = network()
    mask = torch.zeros(12, 12)
    mask[2:6] = 1
    changed = uf.attacks.st_adv(model, images, model(images).argmax(1), mask=mask, keep="best", steps=8) != images
    assert changed.any()
    assert not (changed & (mask == 0)).any()


def test_an_unknown_solver(network, images):
    with pytest.raises(Unsupported, match="lbfgs, adam"):
        uf.attacks.st_adv(network(), images, torch.zeros(6, dtype=torch.int64), solver="sgd")
