"""Square: its budget to the query, its proposals one by one, its textures against the paper's loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.ascent.threats import ball
from underfire.attacks.square import _exchange, _side, _texture, _tiles
from underfire.errors import InputError, OracleError
from underfire.measures import perturbation


class Recorder(nn.Module):
    """Two classes by the mean of the image; remembers every batch it was shown."""

    def __init__(self, shift: float = 10.0) -> None:
        super().__init__()
        self.shift, self.seen = shift, []

    def forward(self, x):
        self.seen.append(x.clone())
        mean = x.flatten(1).mean(1)
        return torch.stack([mean + self.shift, torch.zeros_like(mean)], 1)


@pytest.fixture
def x():
    return 0.3 + 0.4 * rand(4, 3, 12, 9, dtype=torch.float64)


def test_one_forward_pass_a_query_and_never_one_too_many(x):
    model, queries = Recorder(), torch.tensor([1, 7, 20, 40])
    uf.attacks.square(model, x, torch.zeros(4, dtype=torch.int64), queries=queries)
    assert [len(batch) for batch in model.seen] == [4] + [3] * 6 + [2] * 13 + [1] * 20


def test_a_fooled_sample_costs_nothing_more(x):
    model = uf.Classifier(Recorder(-0.5))
    y = torch.zeros(4, dtype=torch.int64)
    x = torch.cat([torch.full_like(x[:1], 0.501), torch.full_like(x[1:], 0.9)])
    with model.counting() as count:
        x_adv = uf.attacks.square(model, x, y, eps=0.05, queries=50)
    assert (model(x_adv).argmax(1) != y).tolist() == [True, False, False, False]
    assert count.forwards < 3 * 50 + 50
    assert count.backwards == 0


def test_linf_proposals_are_squares_of_one_colour(x):
    """Every query differs from the best so far in one square of the right side, where every channel is at an end."""
    model, eps, queries = Recorder(), 0.05, 60
    z = uf.attacks.square(model, x[:1], torch.zeros(1, dtype=torch.int64), eps=eps, queries=queries)
    best, score = model.seen[0], float("-inf")
    assert torch.allclose((best - x[:1]).abs(), torch.full_like(best, eps))
    assert torch.equal(best.sub(x[:1]).sign(), best.sub(x[:1]).sign()[:, :, :1].expand_as(best))  # vertical stripes
    changed = 0
    for k, query in enumerate(model.seen):
        if k:
            side = int(_side(0.8, torch.tensor([k - 1]), torch.tensor([queries]), 12, 9))
            rows, columns = ((query != best).any(1)[0].any(d).nonzero().flatten() for d in (1, 0))
            assert rows.max() - rows.min() < side
            assert columns.max() - columns.min() < side
            square = (query - x[:1])[0, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert torch.allclose(square.abs(), torch.full_like(square, eps))
            changed += 1
        value = -float(query.mean())
        if value > score:
            best, score = query, value
    assert changed == queries - 1  # no query was wasted on an image that was known
    assert torch.equal(z, best)


def test_the_papers_schedule():
    """Side 26 of 32 at first; p halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10000."""
    used = torch.tensor([0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001])
    sides = _side(0.8, used, torch.full_like(used, 10000), 32, 32).tolist()
    shares = [0.8 / 2**k for k in (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert sides == [max(round((p * 1024) ** 0.5), 1) for p in shares]
    assert int(_side(0.8, torch.tensor([26]), torch.tensor([5000]), 32, 32)) == round((0.2 * 1024) ** 0.5)


def slow_texture(s):
    """The rectangles of the paper's appendix, laid one on the other."""

    def pyramid(height, width):
        eta = torch.zeros(height, width)
        row, column = height // 2, width // 2
        for k in range(max(height // 2 + 1, width // 2 + 1)):
            eta[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
        return eta

    return torch.cat([pyramid(s // 2, s), -pyramid(s - s // 2, s)])


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 11])
def test_the_papers_texture(side):
    assert torch.allclose(_texture(side, torch.zeros(1)), slow_texture(side), atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_l2_and_l1_proposals_use_up_the_radius(x, norm):
    """Far from the box; what changed lies in two squares of the side asked for."""
    threat = ball(norm, torch.full((4,), 0.5, dtype=torch.float64))
    generator = torch.Generator().manual_seed(1)
    best = _tiles(x, threat, generator)
    assert getattr(perturbation, norm)(x, best).tolist() == pytest.approx([0.5] * 4)
    z = _exchange(x, best, threat, torch.tensor([3, 4, 5, 8]), generator)
    assert getattr(perturbation, norm)(x, z).tolist() == pytest.approx([0.5] * 4)
    scale = (z - x) / (best - x)
    for i, side in enumerate([3, 5, 5, 9]):
        same = torch.isclose(scale[i], scale[i].median(), rtol=1e-6)
        assert (~same).any(0).sum() <= 2 * side**2


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.4), ("l1", 4.0)])
def test_a_goal_by_queries_alone(network, norm, eps):
    model = network()
    x = rand(4, 3, 12, 9, seed=3)
    logits = model.predict(x)
    y, goal = logits.topk(2, dim=1).indices.T
    x_adv = uf.attacks.square(
        model, x, y, goal=goal, norm=norm, eps=eps, queries=100, generator=torch.Generator().manual_seed(0)
    )
    lead = [m.gather(1, goal[:, None]) - m.gather(1, y[:, None]) for m in (logits, model.predict(x_adv))]
    assert (lead[1] > lead[0]).all()


def test_what_was_found_survives_a_model_that_fails(x):
    class Failing(Recorder):
        def forward(self, x):
            if len(self.seen) == 5:
                raise ConnectionError("gone")
            return super().forward(x)

    with pytest.raises(OracleError, match="after 20 queries: gone") as caught:
        uf.attacks.square(Failing(), x, torch.zeros(4, dtype=torch.int64), eps=0.1, queries=50)
    assert (caught.value.found != x).any()
    assert perturbation.within(x, caught.value.found, "linf", 0.1).all()


def test_a_share_is_a_share(x):
    with pytest.raises(InputError, match=r"share .*\(0, 1\]"):
        uf.attacks.square(Recorder(), x, torch.zeros(4, dtype=torch.int64), share=1.5)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.7), ("l1", 3.0)])
def test_squares_that_cancel_leave_a_number(network, norm, eps):
    """On one pixel the new square and the old one are opposite half of the time, and nothing is left to scale."""
    model, x = network(), rand(6, 3, 1, 1)
    y = model.predict(x).argmax(1)
    x_adv = uf.attacks.square(model, x, y, norm=norm, eps=eps, queries=20, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(x_adv).all()


def test_a_bare_model_in_half_precision(network, x):
    """Its answers are another precision than the images."""
    body = network().module.to(torch.bfloat16)
    model, x = nn.Sequential(Cast(), body), x.float()
    y = model(x).argmax(1)
    x_adv = uf.attacks.square(model, x, y, eps=0.05, queries=20)
    assert perturbation.within(x, x_adv, "linf", 0.05).all()


class Cast(nn.Module):
    """To half precision."""

    def forward(self, x):
        return x.bfloat16()
