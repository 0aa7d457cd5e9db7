"""The seven functions of Carlini and Wagner: the formulas, where they end, and what is left of their slopes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.networks import randn
from underfire.ascent.objectives import carlini
from underfire.ascent.step import Targets
from underfire.errors import InputError

ALL = pytest.mark.parametrize("f", range(1, 8))


@pytest.fixture
def logits() -> Tensor:
    return 2 * randn(200, 5, seed=3, dtype=torch.float64)


def value(f: int, logits: Tensor, goal: int | None = None, confidence: float = 0.0) -> Tensor:
    """f(x') itself, for the label 0."""
    y = torch.zeros(len(logits), dtype=torch.int64)
    targets = Targets(y, None if goal is None else torch.full_like(y, goal), torch.arange(len(y)))
    return -carlini(f, confidence)(targets.step(None, None, logits))


def printed(f: int, z: list[float], t: int, rival: int | None) -> float:
    """The formula, number by number; 1 and 5 as mended."""
    total = sum(math.exp(v) for v in z)
    p = [math.exp(v) / total for v in z]
    seen = p if f in (2, 3) else z
    behind = (max(v for i, v in enumerate(seen) if i != t) if rival is None else seen[rival]) - seen[t]
    return {
        1: -math.log2(p[t]) - 1,
        2: max(behind, 0),
        3: math.log(1 + math.exp(behind)) - math.log(2),
        4: max(0.5 - p[t], 0),
        5: -math.log(2 * p[t]),
        6: max(behind, 0),
        7: math.log(1 + math.exp(behind)) - math.log(2),
    }[f]


@ALL
def test_the_formulas(logits, f):
    targeted, untargeted = value(f, logits, 2), value(f, logits)
    for i in range(20):
        z = logits[i].tolist()
        assert targeted[i] == pytest.approx(printed(f, z, 2, None))
        assert untargeted[i] == pytest.approx(printed(f, z, max(range(1, 5), key=lambda k: z[k]), 0))


@ALL
@pytest.mark.parametrize("goal", [None, 2])
def test_zero_or_less_only_where_the_attack_is_through(logits, f, goal):
    predicted, p = logits.argmax(1), logits.softmax(1)
    through = predicted != 0 if goal is None else predicted == goal
    ended = value(f, logits, goal) <= 1e-12
    assert through[ended].all()
    assert ended.any()
    if f in (1, 4, 5):
        t = p[:, 1:].amax(1) if goal is None else p[:, goal]
        assert torch.equal(ended, t >= 0.5)
    else:
        assert torch.equal(ended, through)
    two = logits[:, :2]  # with two classes all seven are exact
    assert torch.equal(value(f, two, None if goal is None else 1) <= 1e-12, two.argmax(1) == 1)


@ALL
def test_confidence_is_a_lead_in_logits(logits, f):
    lead = logits[:, 2] - torch.cat([logits[:, :2], logits[:, 3:]], dim=1).amax(1)
    ended = value(f, logits, 2, confidence=1.5) <= 1e-12
    assert (lead[ended] >= 1.5).all()
    assert ended.any()
    lead = logits[:, 1:].amax(1) - logits[:, 0]
    ended = value(f, logits, confidence=1.5) <= 1e-12
    assert (lead[ended] >= 1.5).all()
    if f in (2, 3, 6, 7):
        assert torch.equal(ended, lead >= 1.5)


@ALL
@pytest.mark.parametrize("goal", [None, 2])
def test_a_saturated_network(f, goal):
    logits = (1e4 * torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, -2.0, 3.0]])).requires_grad_()
    found = value(f, logits, goal)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(found).all()
    assert torch.isfinite(slope).all()
    if f in (1, 5, 6, 7):
        assert float(slope[0, 2]) <= -0.9
        assert float(slope[0, 0]) >= 0.9


def test_a_number_out_of_range():
    with pytest.raises(InputError, match="f .* got 8"):
        carlini(8)
