"""The label smoothing of ADV²: a constant, or drawn in every step from a range that narrows, as in the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from tests.attacks.adv2.conftest import Case
from tests.networks import rand, seeded
from underfire.ascent.objectives import cross_entropy
from underfire.ascent.step import Step, Targets
from underfire.attacks.adv2.smoothing import smoothed_cross_entropy
from underfire.audit.methods import values_of
from underfire.audit.spec import parse_attack
from underfire.errors import InputError

COUNT, STEPS, CLASSES = 400, 10, 5


def step(progress: float) -> Step:
    logits, goal = 3 * rand(COUNT, CLASSES, seed=1), torch.arange(COUNT) % CLASSES
    index = torch.arange(COUNT)
    return Targets(goal, goal, index).step(None, logits, logits, progress)  # type: ignore[arg-type]


def labels(progress: float, pair: tuple[float, float] = (0.4, 0.1)) -> torch.Tensor:
    """Return what the label of the goal lacks, from the value of the objective, which is linear in it."""
    at = step(progress)
    assert at.goal is not None
    log_p = at.logits.log_softmax(1)
    of_goal = log_p.gather(1, at.goal[:, None])[:, 0]
    others = (log_p.sum(1) - of_goal) / (CLASSES - 1)
    value = smoothed_cross_entropy(pair, COUNT, STEPS, seeded())(at)
    return (value - of_goal) / (others - of_goal)


@pytest.mark.parametrize(("progress", "largest"), [(0.0, 0.4), (0.5, 0.25), (1.0, 0.1)])
def test_the_label_is_uniform_below_a_line(progress: float, largest: float) -> None:
    drawn = labels(progress)
    assert drawn.min() >= -1e-5 and 0.95 * largest < drawn.max() <= largest + 1e-5
    assert drawn.mean().item() == pytest.approx(largest / 2, rel=0.1)


def test_a_step_has_one_draw_and_the_next_another() -> None:
    objective = smoothed_cross_entropy((0.4, 0.4), COUNT, STEPS, seeded())
    assert torch.equal(objective(step(0.3)), objective(step(0.3)))
    assert not torch.allclose(objective(step(0.3)), objective(step(0.4)))
    assert torch.equal(smoothed_cross_entropy(0.1, COUNT, STEPS, seeded())(step(0.0)), cross_entropy(0.1)(step(0.0)))


def test_the_attack_takes_it_from_python_and_from_a_spec(small: Case) -> None:
    options: dict[str, Any] = {"interpreter": uf.interpreters.cam, "goal": small.goal, "eps": 0.2}
    x_adv = uf.attacks.adv2(small.model, small.x, small.y, steps=30, warm_steps=10, smoothing=(0.05, 0.01), **options)
    assert (small.model(x_adv).argmax(1) == small.goal).float().mean() >= 0.8
    entry = parse_attack({"name": "adv2", "interpreter": "gradient", "smoothing": [0.05, 0.01]})
    assert tuple(values_of(entry)["smoothing"]) == (0.05, 0.01)


@pytest.mark.parametrize("wrong", [1.0, -0.1, (0.1,), (0.1, 1.0), (0.1, "a"), "much"])
def test_other_forms_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="smoothing"):
        smoothed_cross_entropy(wrong, 1, 1, seeded())
