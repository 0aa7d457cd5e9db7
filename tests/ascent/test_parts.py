"""Objectives and moves against their formulas."""

import pytest
import torch
from torch.nn import functional as F

from tests.networks import rand, randn
from underfire.ascent import moves, objectives, step_rules
from underfire.ascent.step import Targets, take
from underfire.errors import InputError, Unsupported
from underfire.interpreters import cam
from underfire.measures.maps import map_l2


@pytest.fixture
def logits():
    return randn(6, 5, dtype=torch.float64)


def targets(y, goal=None):
    return Targets(torch.tensor(y), None if goal is None else torch.tensor(goal), torch.arange(len(y)))


Y, GOAL = [0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]


def value(objective, logits, goal=None):
    return objective(targets(Y, goal).step(None, None, logits))


def test_margin_is_by_how_much_the_wrong_class_leads(logits):
    for i, (y, goal) in enumerate(zip(Y, GOAL, strict=True)):
        z = logits[i].tolist()
        assert value(objectives.margin(), logits)[i] == max(v for k, v in enumerate(z) if k != y) - z[y]
        assert value(objectives.margin(), logits, GOAL)[i] == z[goal] - max(v for k, v in enumerate(z) if k != goal)


def test_cross_entropy_and_its_log_odds(logits):
    y, goal = torch.tensor(Y), torch.tensor(GOAL)
    assert torch.allclose(value(objectives.cross_entropy(), logits), F.cross_entropy(logits, y, reduction="none"))
    smooth = -(0.9 * F.one_hot(goal, 5) + 0.1 / 5).mul(logits.log_softmax(1)).sum(1)
    assert torch.allclose(value(objectives.cross_entropy(0.1), logits, GOAL), -smooth)
    odds = value(objectives.log_odds(), logits)
    assert torch.allclose(F.softplus(odds), F.cross_entropy(logits, y, reduction="none"))
    p = logits.softmax(1).gather(1, goal[:, None]).squeeze(1)
    assert torch.allclose(value(objectives.log_odds(), logits, GOAL), torch.log(p / (1 - p)))


def test_log_odds_has_the_direction_of_cross_entropy_and_never_vanishes(logits):
    def direction(objective, z):
        z = z.detach().requires_grad_()
        return torch.autograd.grad(value(objective, z).sum(), z)[0]

    odds, entropy = direction(objectives.log_odds(), logits), direction(objectives.cross_entropy(), logits)
    assert torch.allclose(F.normalize(odds), F.normalize(entropy))
    sure = (logits + 1000 * F.one_hot(torch.tensor(Y), 5)).float()
    assert (direction(objectives.cross_entropy(), sure) == 0).all()
    assert (direction(objectives.log_odds(), sure).norm(dim=1) > 1).all()


def test_dlr_is_the_papers_and_ignores_shift_and_scale(logits):
    for i, (y, goal) in enumerate(zip(Y, GOAL, strict=True)):
        z = logits[i]
        top = z.sort(descending=True).values
        other = max(v for k, v in enumerate(z.tolist()) if k != y)
        assert value(objectives.dlr(), logits)[i] == pytest.approx(-((z[y] - other) / (top[0] - top[2])).item())
        wanted = -((z[y] - z[goal]) / (top[0] - (top[2] + top[3]) / 2)).item()
        assert value(objectives.dlr(), logits, GOAL)[i] == pytest.approx(wanted)
    assert torch.allclose(value(objectives.dlr(), 7 * logits + 3), value(objectives.dlr(), logits))
    with pytest.raises(Unsupported, match="at least 3 classes"):
        objectives.dlr()(targets([0] * 6).step(None, None, logits[:, :2]))
    with pytest.raises(Unsupported, match="at least 4 classes"):
        objectives.dlr()(targets([0] * 6, [1] * 6).step(None, None, logits[:, :3]))


def test_sums_scales_and_schedules(logits):
    one, two = objectives.margin(), objectives.cross_entropy()
    less = -one
    both = 2 * one + two * (lambda progress: 10 * progress) + -less
    where = Targets(torch.tensor(Y), None, torch.arange(6)).step(None, None, logits, 0.3)
    wanted = 3 * one(where) + 3 * two(where)
    assert torch.allclose(both(where), wanted)


def test_keep_map_is_the_squared_distance_of_normalised_maps(network):
    model = network("relu", torch.float64)
    x = rand(3, 3, 8, 8, dtype=torch.float64)
    goal = torch.tensor([1, 2, 3])
    target = rand(3, 1, 4, 4, seed=1, dtype=torch.float64)
    term = objectives.keep_map(cam, target)
    where = Targets(torch.zeros(3, dtype=torch.int64), goal, torch.arange(3))
    assert torch.allclose(-term(where.step(model, x, model(x))), map_l2(cam(model, x, goal), target) ** 2)
    rows = torch.tensor([2, 0])
    part = term(where.take(rows).step(model, x[rows], model(x[rows])))
    assert torch.allclose(part, term(where.step(model, x, model(x)))[rows])
    with pytest.raises(InputError, match="pool"):
        objectives.keep_map(cam, target, pool=0)


def test_label_smoothing_needs_a_goal(logits):
    with pytest.raises(Unsupported, match="needs a goal"):
        value(objectives.cross_entropy(0.1), logits)
    with pytest.raises(InputError, match="label smoothing"):
        objectives.cross_entropy(1.0)


def gradients():
    return [randn(4, 3, 5, 5, seed=i, dtype=torch.float64) for i in range(6)]


def test_momentum_accumulates_unit_gradients():
    move = moves.momentum(0.5)
    state, total = move.init(torch.zeros(4, 3, 5, 5, dtype=torch.float64)), 0
    for g in gradients():
        d, state = move.update(g, state)
        total = 0.5 * total + g / g.abs().sum((1, 2, 3), keepdim=True)
        assert torch.allclose(d, total)


def test_look_ahead_peeks_along_the_momentum():
    move = moves.look_ahead(0.9)
    _, state = move.update(gradients()[0], move.init(torch.zeros(4, 3, 5, 5, dtype=torch.float64)))
    assert torch.allclose(move.peek(state, 0.1), 0.1 * 0.9 * state)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_is_torchs(amsgrad):
    z = torch.zeros(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    optimizer, move = torch.optim.Adam([z], lr=0.1, amsgrad=amsgrad), moves.adam(amsgrad=amsgrad)
    mine = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    state = move.init(mine)
    for g in (g * 0.3**i for i, g in enumerate(gradients())):  # they shrink, so that the largest square is not the last
        z.grad = -g  # torch descends
        optimizer.step()
        d, state = move.update(g, state)
        mine = mine + 0.1 * d
    assert torch.allclose(mine, z.detach())


def test_states_follow_their_samples():
    state = (torch.arange(4.0), 7, None, (torch.eye(4),))
    taken = take(state, torch.tensor([2, 0]))
    assert taken[0].tolist() == [2, 0]
    assert taken[1:3] == (7, None)
    assert torch.equal(taken[3][0], torch.eye(4)[[2, 0]])


def test_schedules():
    assert [step_rules.linear(1.0, 0.0)(i, 5) for i in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [step_rules.cosine(1.0, 0.0)(i, 3) for i in range(3)] == pytest.approx([1, 0.5, 0])
    assert [step_rules.staircase({0: 1.0, 0.5: 0.1})(i, 4) for i in range(4)] == [1, 1, 0.1, 0.1]
    assert step_rules.linear(1.0)(0, 1) == 1
    assert step_rules.current_step_size(0.3, 0, 1) == 0.3
    with pytest.raises(InputError, match="key 0"):
        step_rules.staircase({0.5: 1.0})
