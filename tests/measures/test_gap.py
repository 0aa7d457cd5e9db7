"""The prediction-interpretation gap on systems whose gap is known, and its bound for complete maps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import rand
from underfire.attacks.adv2 import adv2
from underfire.attacks.pgd import pgd
from underfire.errors import InputError
from underfire.measures.gap import areas, gap_interval, interpretation_gap, likeness
from underfire.measures.maps import map_iou

SIDE, CLASSES = 10, 5
EPS = (0.02, 0.05, 0.09, 0.2)


class Stripes(nn.Module):
    """A classifier whose evidence is known: the logit of class c is the mean of stripe c, two rows of ten."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.unflatten(2, (CLASSES, 2)).mean((1, 3, 4))


def evidence(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the logits as a map: its largest fifth is the stripe of the predicted class."""
    return model(x)[:, None, :, None].repeat_interleave(2, 2).expand(-1, 1, -1, SIDE) / 20


def ignorant(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the same map for every image, but attached to it, so that an attack can ask for a gradient."""
    return torch.arange(SIDE * SIDE).to(x).view(1, 1, SIDE, SIDE) + 0 * x.sum((1, 2, 3), keepdim=True)


def half(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a map whose largest fifth is the left half of the predicted stripe, and half of a stripe that stays."""
    m = evidence(model, x, y).clone()
    m[..., SIDE // 2 :] = 0
    m[:, :, :2, SIDE // 2 :] = 2
    return m


def attacked(interpreter: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Attack the stripes at every size, plainly and with ADV²; return who fell, and their best IoU."""
    model, x = Stripes(), 0.4 + 0.001 * rand(12, 1, SIDE, SIDE)
    for i in range(len(x)):  # image i falls where 2 eps exceeds its margin, 0.02 + 0.03 i
        x[i, :, 2 * (i % CLASSES) : 2 * (i % CLASSES) + 2] += 0.02 + 0.03 * i
    y = model(x).argmax(1)
    m, fooled, best = interpreter(model, x, y), [], []
    for eps in EPS:
        won, iou = [], []
        for x_adv in (
            pgd(model, x, y, eps=eps, steps=5),
            adv2(model, x, y, interpreter=interpreter, eps=eps, steps=8, warm_steps=5, confidence=0.5),
        ):
            pred = model(x_adv).argmax(1)
            won.append(pred != y)
            iou.append(torch.where(won[-1], map_iou(m, interpreter(model, x_adv, pred)), 0))
        fooled.append(torch.stack(won).any(0))
        best.append(torch.stack(iou).amax(0))
    return torch.stack(fooled), torch.stack(best)


@pytest.mark.parametrize(("interpreter", "known"), [(evidence, 0.0), (half, 0.375), (ignorant, 1.0)])
def test_systems_whose_gap_is_known(interpreter, known):
    # `half` keeps half of its top pixels whatever the class: (1/2 - 1/5) / (4/5)
    fooled, iou = attacked(interpreter)
    assert fooled.sum(1).tolist() == [1, 3, 6, 12]
    assert interpretation_gap(fooled, iou, torch.tensor(EPS)) == pytest.approx(known, abs=1e-6)
    found = gap_interval(*areas(fooled, iou, torch.tensor(EPS)))
    assert (found.low, found.high, found.n) == (pytest.approx(known, abs=1e-6), pytest.approx(known, abs=1e-6), 12)


@pytest.mark.slow
def test_unrelated_maps_have_no_gap_and_their_likeness_is_that_of_chance():
    m, n = rand(400, 1, 30, 30).split(200)
    share = 2 * map_iou(m, n) / (1 + map_iou(m, n))
    assert share.mean().item() == pytest.approx(0.2, abs=0.005)
    # wherever they lie: over all shifts of a map, the mean share is that of chance, exactly
    shifted = torch.cat([m[:1].roll((i, j), (2, 3)) for i in range(30) for j in range(30)])
    share = map_iou(m[:1].expand_as(shifted), shifted)
    assert (2 * share / (1 + share)).double().mean().item() == pytest.approx(0.2, abs=1e-6)
    gap = interpretation_gap(torch.ones(1, 200, dtype=torch.bool), map_iou(m, n)[None], torch.tensor([0.1]))
    assert 0 <= gap < 0.02  # likeness is not below 0, so chance is just above it


def test_likeness():
    found = likeness(torch.tensor([1.0, 1 / 3, 1 / 9, 0.0, math.nan], dtype=torch.float64))
    assert found[:4].tolist() == pytest.approx([1.0, 0.375, 0.0, 0.0]) and found[4].isnan()
    assert likeness(torch.tensor(1 / 3), quantile=0.5).item() == pytest.approx(0.0)


def test_the_area_is_the_integral():
    """Image 0 falls at 1 with half of its map, and at 3 whole; image 1 falls at 3 only; image 2 never."""
    fooled = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    iou = torch.tensor([[1 / 3, 0.9, 0.9], [0.0, 0.9, 0.9], [1.0, 0.0, 0.9]], dtype=torch.float64)
    kept, won = areas(fooled, iou, torch.tensor([1.0, 2.0, 3.0]))
    # image 0: 0 → 0.375 → 0.375 → 1 (what worked at 1 works at 2); image 1: 0 → 0 → 0 → 0
    assert kept.tolist() == pytest.approx([0.375 / 2 + 0.375 + (0.375 + 1) / 2, 0, 0])
    assert won.tolist() == pytest.approx([0.5 + 1 + 1, 0.5, 0])
    assert interpretation_gap(fooled, iou, torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(1.25 / 3.0)


def test_one_size_is_the_ratio_at_that_size_and_nothing_fooled_is_nothing_known():
    fooled, iou = torch.tensor([[True, True, False]]), torch.tensor([[1.0, 1 / 3, 1.0]])
    assert interpretation_gap(fooled, iou, torch.tensor([0.1])) == pytest.approx((1 + 0.375) / 2)
    assert math.isnan(interpretation_gap(~fooled & fooled, iou, torch.tensor([0.1])))


def test_an_image_without_a_ranking_is_left_out():
    fooled, iou = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1.0, math.nan, 1 / 3]])
    found = gap_interval(*areas(fooled, iou, torch.tensor([0.1])))
    assert (found.value, found.n) == (pytest.approx((1 + 0.375) / 2), 2)


@pytest.mark.parametrize("eps", [[0.2, 0.1], [0.0, 0.1], [0.1, 0.1], [0.1]])
def test_sizes_must_ascend(eps):
    with pytest.raises(InputError, match="eps"):
        interpretation_gap(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3), torch.tensor(eps))
    assert "interpretation_gap" in uf.measures.__all__
