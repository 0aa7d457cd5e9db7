"""Fidelity by removal against closed forms and a loop."""

import pytest
import torch

from tests.networks import rand
from underfire.attribution.fills import fill_image
from underfire.errors import InputError
from underfire.measures import fidelities as removals
from underfire.measures.removal import pixel_order


@pytest.fixture
def case(network, generator):
    model = network("relu", torch.float64)
    x = torch.rand(3, 3, 10, 10, generator=generator, dtype=torch.float64)
    m = torch.rand(3, 1, 10, 10, generator=generator, dtype=torch.float64)
    return model, x, torch.tensor([0, 1, 3]), m


def test_the_table_against_a_loop(case):
    model, x, y, m = case
    shares, fills = (0.1, 0.25), ("black", "mean", "blur")
    found = removals.removal(model, x, y, m, shares=shares, fills=fills)
    with torch.no_grad():
        for i in range(3):
            clean = model(x[i : i + 1]).softmax(1)[0, y[i]]
            order = m[i].flatten().argsort(descending=True)
            for q, share in enumerate(shares):
                for f, fill in enumerate(fills):
                    image, other = x[i : i + 1].clone(), fill_image(x[i : i + 1], fill)
                    top = order[: round(share * 100)]
                    image.view(3, -1)[:, top] = other.reshape(3, -1)[:, top]
                    drop = clean - model(image).softmax(1)[0, y[i]]
                    assert found.drop[i, q, f].item() == pytest.approx(drop.item())
    assert torch.allclose(removals.fidelity(model, x, y, m, shares=shares, fills=fills), found.drop.mean((1, 2)))


def test_a_model_that_looks_at_one_square(generator):
    """A map of that square drops its logit by all of it; the control only where it meets the square."""
    x = torch.ones(4, 1, 8, 8)
    square = torch.zeros(1, 1, 8, 8)
    square[..., :2, :2] = 1

    def model(x):
        score = (x * square).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], 1)

    y, m = torch.zeros(4, dtype=torch.int64), square + 0.01 * torch.rand(4, 1, 8, 8, generator=generator)
    found = removals.removal(model, x, y, m, shares=(4 / 64,), fills=("black",), samples=40, generator=generator)
    everything = torch.tensor(4.0).sigmoid() - 0.5
    assert torch.allclose(found.drop, everything)
    assert (found.control < 0.4 * everything).all()
    assert (found.control > 0).all()
    gain = removals.fidelity_over_chance(model, x, y, m, shares=(4 / 64,), fills=("black",))
    assert (gain > 0.6 * everything).all()


def test_controls_know_nothing_and_keep_what_they_promise(generator):
    m = torch.rand(2, 1, 6, 5, generator=generator)
    order = pixel_order(m, torch.zeros(2, 3, 6, 5))
    shifted = removals.control_orders(order, (6, 5), "shifted", 3, generator)
    pixels = removals.control_orders(order, (6, 5), "pixels", 3, generator)
    for found in (shifted, pixels):
        assert found.shape == (3, 2, 30)
        assert (found.sort(2).values == torch.arange(30)).all()
    first = (shifted[0, 0].view(6, 5) == 0).nonzero()[0] - (order[0, 0].view(6, 5) == 0).nonzero()[0]
    assert torch.equal(shifted[0].view(2, 6, 5), order[0].view(2, 6, 5).roll(tuple(first.tolist()), (1, 2)))
    assert torch.equal(pixels[:, 0], pixels[:, 1])  # shared by the batch
    again = removals.control_orders(order, (6, 5), "shifted", 3)
    assert torch.equal(again, removals.control_orders(order, (6, 5), "shifted", 3))


def test_random_maps_gain_nothing_over_random_pixels(case):
    """A map of noise is one more draw of the control."""
    model, x, y, _ = case
    x, y = x.repeat(40, 1, 1, 1), y.repeat(40)
    m = rand(len(x), 1, 10, 10, seed=3, dtype=torch.float64)
    found = removals.removal(model, x, y, m, shares=(0.2,), fills=("black",), control="pixels", samples=20)
    gain, spread = (found.drop - found.control).mean((1, 2)), found.drop.mean((1, 2)).std()
    assert gain.mean().abs() < 4 * spread / len(x) ** 0.5 + 4 * spread / 20**0.5


def test_a_constant_map_removes_nothing_in_particular(case):
    model, x, y, m = case
    m = m.clone()
    m[1] = -2
    assert removals.fidelity(model, x, y, m).isnan().tolist() == [False, True, False]
    assert removals.fidelity_over_chance(model, x, y, m).isnan().tolist() == [False, True, False]


def test_bad_input(case):
    with pytest.raises(InputError, match=r"shares .*\(0, 1\]"):
        removals.fidelity(*case, shares=(0.0,))
    with pytest.raises(InputError, match="'zebra' .* shifted, pixels"):
        removals.fidelity_over_chance(*case, control="zebra")
    with pytest.raises(InputError, match="samples .* got 0"):
        removals.removal(*case, samples=0)
