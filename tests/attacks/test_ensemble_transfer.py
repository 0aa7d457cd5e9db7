"""Liu et al.'s attack on an ensemble: the objective of the paper by Adam, written out; the logit attack's constants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import underfire as uf
from tests.networks import build_network, rand
from underfire import attacks, models
from underfire.model import Classifier

EPS, STEPS, RATE = 0.08, 5, 0.02
Y = torch.tensor([0, 1, 2])


@pytest.fixture(scope="module")
def sources() -> list[Classifier]:
    return [build_network("smooth", torch.float64, seed=seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 0.2 + 0.6 * rand(3, 3, 8, 8, dtype=torch.float64)


def slow(sources: list[Classifier], x: Tensor, goal: Tensor | None, weight: float) -> Tensor:
    """Equations (7) and (8) with torch's Adam and a clip to the ball."""
    z = x.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=RATE)
    for step in range(STEPS):
        p = sum(model(z).softmax(1) for model in sources) / len(sources)
        picked = p.gather(1, (Y if goal is None else goal)[:, None]).squeeze(1)
        loss = -(torch.log(1 - picked) if goal is None else torch.log(picked))
        if step:
            loss = loss + weight * (z - x).square().mean((1, 2, 3)).sqrt()
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            z.copy_(z.clamp(x - EPS, x + EPS).clamp(0, 1))
    return z.detach()


@pytest.mark.parametrize("goal", [None, torch.tensor([3, 0, 1])])
@pytest.mark.parametrize("fuse", ["logits", "losses"])
def test_it_is_the_paper_with_a_bound(sources: list[Classifier], x: Tensor, goal: Tensor | None, fuse: str) -> None:
    options = {"eps": EPS, "steps": STEPS, "step_size": RATE, "distance_weight": 3.0, "goal": goal}
    model = models.ensemble(sources, fuse)
    with model.counting() as count:
        ours = attacks.ensemble_transfer(model, x, Y, **options)
    assert (ours - slow(sources, x, goal, 3.0)).abs().max() < 1e-6
    assert count.forwards == STEPS * len(x)
    assert not torch.equal(ours, attacks.ensemble_transfer(model, x, Y, **{**options, "distance_weight": 0.0}))


def test_one_model_is_one_source(sources: list[Classifier], x: Tensor) -> None:
    one, other = (attacks.ensemble_transfer(m, x, Y, steps=3) for m in (sources[0], models.ensemble(sources[:1])))
    assert torch.allclose(one, other)


def test_the_logit_attack_has_the_constants_of_the_paper() -> None:
    card = uf.find("attack", "logit_attack")
    defaults = {name: card.options[name].default for name in ("steps", "step_size", "probability", "size", "decay")}
    assert defaults == {"steps": 300, "step_size": 2 / 255, "probability": 0.7, "size": 5, "decay": 1.0}
    assert "Zhao et al. 2021" in card.source


def test_the_logit_attack_climbs_the_logit_of_the_goal(sources: list[Classifier], x: Tensor) -> None:
    """With one step, no views and a kernel of one pixel, it is a sign step along the goal's logit."""
    goal = torch.tensor([3, 0, 1])
    ours = attacks.logit_attack(sources[0], x, Y, goal=goal, eps=0.1, steps=1, step_size=0.03, probability=0.0, size=1)
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(sources[0](z).gather(1, goal[:, None]).sum(), z)
    assert torch.allclose(ours, (x + 0.03 * g.sign()).clamp(0, 1))
