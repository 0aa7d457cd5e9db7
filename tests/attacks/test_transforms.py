"""`affine` and `photometric`: what they find is of the announced family, and the searches agree where they must."""

import pytest
import torch

import underfire as uf
from underfire import data, models
from underfire.errors import InputError, Unsupported


@pytest.fixture(scope="module")
def digits():
    """The embedded network, and images that it gets right."""
    model = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:", n=20)[:]
    right = model(batch.x).argmax(1) == batch.y
    return model, batch.x[right][:12], batch.y[right][:12]


def fooled(model, x, y):
    return (model(x).argmax(1) != y).float().mean().item()


class Left(torch.nn.Module):
    """Class 1 as soon as the light is on the left of the middle: a shift to the left is all that it takes."""

    def forward(self, x):
        places = torch.arange(x.shape[3], dtype=x.dtype)
        lead = (x * (places.mean() - places)).sum((1, 2, 3))
        return torch.stack([-lead, lead], 1)


@pytest.mark.parametrize(("search", "steps"), [("grid", 1), ("random", 1), ("gradient", 20)])
def test_the_smallest_shift_that_fools_is_known(search, steps):
    x = torch.zeros(1, 1, 8, 16, dtype=torch.float64)
    x[..., 8:10] = 1  # their middle is one pixel right of the image's
    y = torch.tensor([0])
    options = {"rotation": 0, "search": search, "samples": 200, "steps": steps, "step_size": 0.1}
    near, far = (
        uf.attacks.affine(
            Left(), x, y, translation=t / 16, generator=torch.Generator().manual_seed(0), keep="best", **options
        )
        for t in (0.9, 1.4)
    )
    assert Left()(near).argmax(1) == 0
    assert Left()(far).argmax(1) == 1


@pytest.mark.slow
def test_more_eps_and_more_candidates_fool_more(digits):
    model, x, y = digits
    rates = [fooled(model, uf.attacks.affine(model, x, y, eps=eps, angles=5, values=3), y) for eps in (0, 0.3, 1.0)]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] > 0.3
    found = uf.attacks.affine(model, x, y, search="random", samples=10, generator=torch.Generator().manual_seed(0))
    assert 0.1 < fooled(model, found, y) <= rates[-1]


@pytest.mark.slow
def test_the_grid_leaves_an_image_at_its_mildest_change(digits):
    model, x, y = digits
    options = {"rotation": 0.0, "translation": 0.0, "scale": (0.4, 1.0), "values": 7}
    mild = uf.attacks.affine(model, x, y, **options)
    for i in range(4):
        for factor in torch.linspace(1, 0.4, 7).tolist():
            one = uf.attacks.affine(
                model, x[i : i + 1], y[i : i + 1], **{**options, "scale": (factor, 1.0), "values": 2}, keep="best"
            )
            if fooled(model, one, y[i : i + 1]):
                assert torch.allclose(one[0], mild[i], atol=1e-6)
                break


def test_gradient_search_tries_image_and_complement():
    """Bright images are class 0 whatever the gain; only the complement changes that."""

    class Corner(torch.nn.Module):
        def forward(self, x):
            rest = x[..., 1:, 1:].mean((1, 2, 3))
            return torch.stack([rest - x[..., 0, 0].mean(1), x[..., 0, 0].mean(1) - rest], 1)

    x = torch.full((3, 1, 6, 6), 0.8)
    x[..., 0, 0] = 0.3
    y = torch.zeros(3, dtype=torch.int64)
    for search in ("gradient", "grid"):
        x_adv = uf.attacks.photometric(
            Corner(), x, y, search=search, contrast=(0.5, 2.0), brightness=0.1, random_start=False, steps=3
        )
        assert fooled(Corner(), x_adv, y) == 1
        x_adv = uf.attacks.photometric(
            Corner(), x, y, search=search, contrast=(0.5, 2.0), brightness=0.1, complement=False, random_start=False
        )
        assert fooled(Corner(), x_adv, y) == 0


@pytest.mark.slow
def test_photometric_fools_real_digits_and_with_a_goal(digits):
    model, x, y = digits
    x_adv = uf.attacks.photometric(model, x, y, values=7)
    assert fooled(model, x_adv, y) > 0.5
    goal = (y + 1) % 10
    x_adv = uf.attacks.photometric(model, x, y, goal=goal, values=7, keep="best")
    before, after = (m.log_softmax(1).gather(1, goal[:, None]) for m in (model(x), model(x_adv)))
    assert (after >= before).all()


def test_bad_settings_are_one_clear_error(digits):
    model, x, y = digits
    for error, words, options in [
        (Unsupported, "choices: grid, random, gradient", {"search": "bayes"}),
        (Unsupported, "choices: best, success", {"keep": "last"}),
        (InputError, "samples must be at least 1", {"samples": 0}),
        (InputError, "rotation must be at least 1", {"angles": 0}),
    ]:
        with pytest.raises(error, match=words):
            uf.attacks.affine(model, x, y, **options)
