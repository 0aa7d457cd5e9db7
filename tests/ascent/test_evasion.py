"""The hinge of a detector's score as an objective."""

import pytest
import torch

from tests.networks import build_network, rand
from underfire.ascent.evasion import evade
from underfire.ascent.step import Targets
from underfire.errors import InputError, Unsupported


class Brightness:
    def score(self, model, x):
        return x.mean((1, 2, 3))


class Blind(Brightness):
    def score(self, model, x):
        return super().score(model, x.detach())


def step(x):
    model = build_network()
    zeros = torch.zeros(len(x), dtype=torch.int64)
    return Targets(zeros, None, torch.arange(len(x))).step(model, x, model(x))


def test_the_hinge_counts_what_lies_above_the_threshold():
    x = torch.tensor([0.2, 0.5, 0.9])[:, None, None, None].expand(3, 3, 4, 4).clone().requires_grad_()
    value = evade(Brightness(), 0.6, slack=0.2)(step(x))
    assert torch.allclose(value, torch.tensor([0.0, -0.1, -0.5]), atol=1e-6)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert slope[0].abs().sum() == 0 and torch.allclose(slope[2], torch.full((3, 4, 4), -1 / 48))


def test_a_score_without_a_gradient_is_refused():
    with pytest.raises(Unsupported, match="not differentiable"):
        evade(Blind(), 0.5)(step(rand(2, 3, 4, 4).requires_grad_()))


@pytest.mark.parametrize(("threshold", "slack"), [(float("nan"), 0.0), ("0.5", 0.0), (0.5, -1.0)])
def test_bad_numbers(threshold, slack):
    with pytest.raises(InputError, match="evade|number"):
        evade(Brightness(), threshold, slack=slack)
