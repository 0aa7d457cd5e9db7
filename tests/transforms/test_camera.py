"""The simulated camera: its strengths one by one against closed forms, and the gradient of the whole."""

import math

import pytest
import torch

from tests.networks import rand
from underfire.errors import InputError
from underfire.gradients import views
from underfire.transforms.blur import gaussian_blur_per_sample
from underfire.transforms.camera import camera, seen_from

NOTHING = dict.fromkeys(("rotation", "perspective", "blur", "tone", "contrast", "brightness", "noise"), 0.0)


@pytest.fixture
def x():
    return rand(3, 3, 9, 12, dtype=torch.float64)


def seeded():
    return torch.Generator().manual_seed(7)


def test_without_strength_it_is_the_identity(x):
    assert torch.equal(camera(**NOTHING, quality=None)(x, seeded()), x)


def test_straight_on_it_is_the_identity(x):
    zeros = x.new_zeros(3)
    assert torch.allclose(seen_from(x, zeros, x.new_zeros(3, 4, 2)), x, atol=1e-12)
    assert torch.equal(gaussian_blur_per_sample(x, zeros), x)


def test_quarter_turns_are_exact():
    """Counter-clockwise as one sees it, of square images."""
    x = torch.rand(2, 1, 7, 7, generator=seeded(), dtype=torch.float64)
    turned = seen_from(x, x.new_tensor([math.pi / 2, math.pi]), x.new_zeros(2, 4, 2))
    assert torch.allclose(turned[0], x[0].rot90(1, (1, 2)), atol=1e-9)
    assert torch.allclose(turned[1], x[1].rot90(2, (1, 2)), atol=1e-9)


def test_corners_move_where_they_are_told():
    """All four by one pixel: a shift. One by itself: the view's corner shows that point, the others stay."""
    x = torch.rand(1, 1, 5, 9, generator=seeded(), dtype=torch.float64)
    by_one = x.new_tensor([1 / 8, 1 / 4]).expand(1, 4, 2)
    assert torch.allclose(seen_from(x, x.new_zeros(1), by_one)[..., :-1, :-1], x[..., 1:, 1:], atol=1e-9)
    corner = x.new_zeros(1, 4, 2)
    corner[0, 0] = x.new_tensor([2 / 8, 1 / 4])
    bent = seen_from(x, x.new_zeros(1), corner)[0, 0]
    seen = [bent[0, 0], bent[0, -1], bent[-1, 0], bent[-1, -1]]
    there = [x[0, 0, 1, 2], x[0, 0, 0, -1], x[0, 0, -1, 0], x[0, 0, -1, -1]]
    assert torch.allclose(torch.stack(seen), torch.stack(there), atol=1e-9)


def test_blur_spreads_a_point_like_a_gaussian():
    x = torch.zeros(2, 1, 21, 21, dtype=torch.float64)
    x[:, 0, 10, 10] = 1
    sigma = x.new_tensor([1.0, 1.5])
    spread = gaussian_blur_per_sample(x, sigma)
    assert torch.allclose(spread.sum((1, 2, 3)), x.new_ones(2))
    offsets = torch.arange(21, dtype=torch.float64) - 10
    variance = (spread[:, 0].sum(1) * offsets**2).sum(1)
    assert torch.allclose(variance.sqrt(), sigma, rtol=0.02)


@pytest.mark.parametrize(
    ("strength", "bound"),
    [({"brightness": 0.1}, 0.1), ({"contrast": 0.2}, 0.1), ({"noise": 1e-4}, 1e-3), ({"tone": 0.2}, 0.1)],
)
def test_every_image_gets_a_change_of_its_own_within_the_strength(x, strength, bound):
    photo = camera(**{**NOTHING, **strength}, quality=None)(x[:1].expand(8, -1, -1, -1), seeded())
    change = (photo - x[:1]).abs().amax((1, 2, 3))
    assert (change <= bound).all()
    assert len(change.unique()) == 8


def test_gamma_keeps_black_and_white():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2).requires_grad_()
    photo = camera(**{**NOTHING, "tone": 0.5}, quality=None)(ends, seeded())
    assert torch.allclose(photo, ends, atol=1e-12)
    assert torch.isfinite(torch.autograd.grad(photo.sum(), ends)[0]).all()


@pytest.mark.slow
def test_the_gradient_of_all_but_the_file_is_exact(x):
    transform = camera(quality=None)
    middling = (0.3 + 0.4 * x[:1, :, :5, :6]).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: transform(v, seeded()), middling, atol=1e-6)


def test_the_same_generator_the_same_photograph(x):
    transform = camera()
    assert torch.equal(transform(x, seeded()), transform(x, seeded()))
    first, second = views.eot(transform, samples=2)(x, seeded())
    assert not torch.equal(first, second)
    assert first.shape == x.shape
    assert ((first >= 0) & (first <= 1)).all()


def test_one_channel_float32_and_nothing_at_all():
    assert camera()(rand(2, 1, 8, 8), seeded()).dtype == torch.float32
    assert camera()(rand(0, 3, 8, 8), seeded()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("wrong", [{"blur": -1.0}, {"perspective": 0.3}, {"quality": 0}, {"noise": math.nan}])
def test_a_strength_out_of_range(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
        camera(**wrong)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 17, 23), (2, 3, 1, 5), (2, 3, 5, 1), (1, 2, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_has_a_photograph_and_a_gradient(shape, dtype):
    x = rand(shape, dtype=dtype).requires_grad_()
    seen = camera()(x, torch.Generator().manual_seed(1))
    assert seen.shape == x.shape
    assert seen.dtype == dtype
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert torch.autograd.grad(seen.sum(), x)[0].isfinite().all()
