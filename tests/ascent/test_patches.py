"""Patches: their area to the pixel, their place, their turns, and what does not fit."""

import math

import pytest
import torch

from tests.networks import rand
from underfire.ascent.patches import Places, allowance, check_fits, paste, random_places, shape_mask
from underfire.errors import InputError, Unsupported


@pytest.fixture
def x():
    return torch.full((6, 3, 20, 31), 0.5, dtype=torch.float64)


def picture(mask, channels=3):
    return rand(channels, *mask.shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", ["circle", "square", torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])])
@pytest.mark.parametrize("rotation", [0.0, 180.0])
def test_the_area_is_what_is_allowed(x, shape, rotation):
    """Never a pixel more; and little less, where the whole patch is on the image."""
    pixels = allowance(x, torch.tensor([0.0, 0.002, 0.01, 0.05, 0.1, 0.2]))
    assert pixels.tolist() == [0, 1, 6, 31, 62, 124]
    mask = shape_mask(shape, 124, x)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        places = random_places(x, mask, pixels, rotation=rotation, generator=generator)
        changed = (paste(x, picture(mask), mask, places) != x).any(1).flatten(1).sum(1)
        assert (changed <= pixels).all()
        if rotation == 0:
            assert (changed[3:] >= 0.8 * pixels[3:]).all()


def test_a_share_is_not_lost_to_rounding():
    images = torch.zeros(1, 1, 10, 10)
    for percent in range(101):
        assert allowance(images, percent / 100) == percent


def test_an_upright_square_on_whole_pixels_is_copied(x):
    mask = shape_mask("square", 16, x)
    assert mask.shape == (4, 4)
    places = Places(torch.tensor([16]), x.new_zeros(1), x.new_tensor([[7.0, 12.0]]))
    pasted = paste(x[:1], picture(mask), mask, places)
    assert torch.allclose(pasted[0, :, 5:9, 10:14], picture(mask))
    pasted[0, :, 5:9, 10:14] = 0.5
    assert torch.equal(pasted, x[:1])


def test_a_quarter_turn_is_counter_clockwise(x):
    mask = shape_mask("square", 16, x)
    places = Places(torch.tensor([16]), x.new_tensor([math.pi / 2]), x.new_tensor([[7.0, 12.0]]))
    pasted = paste(x[:1], picture(mask), mask, places)
    assert torch.allclose(pasted[0, :, 5:9, 10:14], picture(mask).rot90(1, (1, 2)))


def test_a_mask_of_ones_and_zeros_is_the_shape(x):
    mask = shape_mask(torch.tensor([[1, 0], [1, 1]]), 12, x)
    places = Places(torch.tensor([12]), x.new_zeros(1), x.new_tensor([[6.0, 6.0]]))  # four by four, a quarter missing
    changed = (paste(x[:1], picture(mask), mask, places) != x[:1]).any(1)[0]
    assert changed[4:8, 4:6].all()
    assert changed[6:8, 6:8].all()
    assert not changed[4:5, 7:].any()
    assert changed.sum() <= 12


def test_places_are_on_the_image_and_all_over_it(x):
    many = x[:1].expand(500, -1, -1, -1)
    mask = shape_mask("circle", 60, x)
    pixels = torch.full((500,), 60)
    places = random_places(many, mask, pixels, rotation=30, scale=0.5, generator=torch.Generator().manual_seed(0))
    assert (places.angle.abs() <= math.radians(30)).all()
    assert places.pixels.min() in range(14, 20)
    assert places.pixels.max() in range(55, 61)
    reach = places.pixels.double().div(mask.sum()).sqrt()[:, None] * torch.tensor(mask.shape) / 2
    assert (places.centre >= reach - 1e-9).all()
    assert (places.centre <= torch.tensor([20, 31]) - reach + 1e-9).all()
    assert (places.centre.std(0) > torch.tensor([2.0, 5.0])).all()


def test_the_gradient_by_the_patch_counts_the_pixels(x):
    mask = shape_mask("circle", 60, x)
    patch = picture(mask).requires_grad_()
    places = random_places(x, mask, allowance(x, 0.1), rotation=45, generator=torch.Generator().manual_seed(0))
    pasted = paste(x, patch, mask, places)
    (gradient,) = torch.autograd.grad(pasted.sum(), patch)
    assert gradient.sum().item() == pytest.approx((pasted != x).sum().item())


@pytest.mark.parametrize(("shape", "largest"), [("square", 400 / 620), ("circle", math.pi * 100 / 620)])
def test_a_patch_bigger_than_the_image(x, shape, largest):
    for share, fits in ((largest - 0.01, True), (largest + 0.02, False), (2.0, False)):
        pixels = allowance(x, share)
        mask = shape_mask(shape, int(pixels.max()), x)
        if fits:
            check_fits(x, mask, pixels)
        else:
            with pytest.raises(InputError, match="image of 20 x 31"):
                check_fits(x, mask, pixels)


def test_shapes_that_are_none(x):
    with pytest.raises(Unsupported, match="choices: circle, square"):
        shape_mask("star", 9, x)
    for wrong in (torch.zeros(3, 3), torch.full((3, 3), 0.5), torch.ones(1, 3, 3)):
        with pytest.raises(InputError, match="zeros and ones"):
            shape_mask(wrong, 9, x)
