"""Warps and changes of light against what they are by definition."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import margin
from underfire.ascent.parametric import Affine, Photometric
from underfire.ascent.search import worst_of
from underfire.errors import InputError, Unsupported

WIDE = Affine(1.0, rotation=70, shear=0.5, scale=(0.4, 1.5), translation=0.3)
WIDEST = dict.fromkeys((*Affine.parameters, *Photometric.parameters), 3)


@pytest.fixture
def x(generator):
    x = torch.rand(4, 3, 9, 12, generator=generator, dtype=torch.float64)
    x[:, :, 0, 0], x[:, :, 1, 1] = 0, 1
    return x


@pytest.mark.parametrize("threat", [WIDE, Photometric(1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_start_leaves_the_image_to_the_bit_and_has_a_slope(threat, x, dtype):
    x = x.to(dtype)
    z = threat.start(x).requires_grad_()
    same = threat.apply(x, z)
    assert torch.equal(same, x)
    (g,) = torch.autograd.grad(same.square().sum(), z)
    movable = [name != "complement" for name in threat.parameters]
    assert ((g != 0).all(0) == torch.tensor(movable)).all()


@pytest.mark.slow
@pytest.mark.parametrize("threat", [WIDE, Photometric(1.0, complement=False)])
def test_gradients_are_those_of_finite_differences(threat, x):
    x = 0.3 + 0.2 * x
    z = 0.13 * threat.draws(x, 1, torch.Generator().manual_seed(3))[:, 0]
    assert torch.autograd.gradcheck(lambda z: threat.apply(x, z), z.requires_grad_(), eps=1e-8, atol=1e-4)


@pytest.mark.parametrize("z", [[1, 0, 0, 0, 0, 0], [0, 1, -0.4, 0, 0, 0], [-0.3, 0.2, 0.5, -0.7, 0.4, -0.9]])
def test_affine_is_rotation_shear_scale_then_translation(x, z):
    """Against scipy's warp of the same matrix, in pixels about the middle; their borders differ."""
    x = torch.nn.functional.pad(x, (6, 6, 6, 6))
    height, width = x.shape[2:]
    angle, h, v = math.radians(70) * z[0], 0.5 * z[1], 0.5 * z[2]
    factor = 1 + (0.6 if z[3] < 0 else 0.5) * z[3]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])  # of (x, y), y down
    forward = turn @ np.array([[1, h], [v, 1]]) * factor
    shift = np.array([0.3 * z[4] * width, 0.3 * z[5] * height])
    inverse = np.linalg.inv(forward)[::-1, ::-1]  # scipy's axes are (y, x)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = middle - inverse @ (middle + shift[::-1])
    warped = WIDE.apply(x, torch.tensor([z], dtype=x.dtype).expand(len(x), -1))
    for image, fast in zip(x.flatten(0, 1), warped.flatten(0, 1), strict=True):
        slow = ndimage.affine_transform(image.numpy(), inverse, offset, order=1, mode="grid-constant")
        assert np.allclose(fast.numpy(), slow, atol=1e-9)


def test_photometric_is_gain_and_bias_of_the_image_or_its_complement(x):
    threat = Photometric(1.0, brightness=0.5, contrast=(0.2, 3.0))
    z = torch.tensor([[0.4, 0, 0], [-1, 0.5, 0], [0, -0.5, 0], [0.2, 1, 1]], dtype=x.dtype)
    wanted = [x[0] + 0.2, 2 * x[1] - 0.5, 0.6 * x[2], 3 * (1 - x[3]) + 0.1]
    assert torch.allclose(threat.apply(x, z), torch.stack(wanted).clamp(0, 1))


def test_projection_is_the_box_of_eps_and_of_the_sides_that_ranges_have(x):
    eps = torch.tensor([0.0, 0.5, 1.0, 1.2], dtype=x.dtype)
    z = torch.full((4, 6), -3.0, dtype=x.dtype)
    threat = Affine(eps, rotation=10, scale=(0.5, 1.0), translation=0.1)
    one = torch.ones(4, dtype=x.dtype)
    wanted = -eps[:, None] * torch.stack([one, 0 * one, 0 * one, one, one, one], 1)
    assert torch.equal(threat.project(x, z), wanted)
    assert (threat.project(x, -z)[:, 3] == 0).all()
    light = Photometric(eps).project(x, torch.full((4, 3), 2.0, dtype=x.dtype))
    assert torch.equal(light, torch.stack([eps, eps, (eps >= 1).to(eps)], 1))  # the complement takes a whole eps
    assert torch.equal(Photometric(eps).take(torch.tensor([1])).bounds(x[:1])[1], 0.5 * torch.ones(1, 3).double())


def test_the_grid_is_every_combination_the_mildest_first(x):
    threat = Affine(torch.tensor([1.0, 0.5, 1.0, 1.0]).double(), rotation=30, translation=0.1)
    grid = threat.grid(x, {"rotation": 31, "shear_x": 5, "translation_x": 5, "translation_y": 5})
    assert grid.shape == (4, 31 * 5 * 5, 6)
    assert len(grid[0].unique(dim=0)) == 31 * 5 * 5
    assert (grid[0, 0] == 0).all()
    assert (grid[0].abs().amax(1).diff() >= 0).all()
    assert torch.equal(grid[1], grid[0] / 2)
    assert Photometric(1.0).grid(x, WIDEST)[0, :, 2].unique().tolist() == [0, 1]
    assert Photometric(0.9).grid(x, WIDEST)[0, :, 2].unique().tolist() == [0]


def test_draws_fill_the_box(x, generator):
    draws = WIDE.draws(x, 2000, generator).flatten(0, 1)
    assert torch.allclose(draws.mean(0), torch.zeros(6).double(), atol=0.03)
    assert torch.allclose(draws.var(0), torch.full((6,), 1 / 3).double(), atol=0.02)
    assert Photometric(1.0).draws(x, 2000, generator)[..., 2].mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("keep", ["success", "best"])
def test_the_worst_of_a_grid(network, x, keep):
    model = network("relu", torch.float64)
    y = model(x).argmax(1)
    grid = WIDE.grid(x, {"rotation": 5, "scale": 5, "translation_x": 3})
    wanted, used = [], []
    for i in range(len(x)):
        images = WIDE.apply(x[i : i + 1].expand(grid.shape[1], -1, -1, -1), grid[0])
        logits = model(images)
        own = y[i].expand(len(images))
        value = logits.scatter(1, own[:, None], -math.inf).amax(1) - logits.gather(1, own[:, None]).squeeze(1)
        first = (logits.argmax(1) != y[i]).nonzero().flatten().tolist()
        wanted.append(images[first[0] if first and keep == "success" else value.argmax()])
        used.append(first[0] + 1 if first and keep == "success" else len(images))
    for chunk in (3, 7, 256):
        with model.counting() as count:
            found = worst_of(model, x, y, WIDE, grid, keep=keep, chunk=chunk)
        assert torch.allclose(found, torch.stack(wanted), atol=1e-12)
        assert sum(used) <= count.forwards <= sum(used) + chunk * len(x)
    assert keep == "best" or min(used) < grid.shape[1]


def test_a_threat_of_parameters_goes_with_the_loop(network, x):
    model = network("smooth", torch.float64)
    y = model(x).argmax(1)
    x_adv = ascend(model, x, y, Recipe(margin(), WIDE, step_rule=0.05), steps=15)

    def lead(logits):
        return logits.gather(1, y[:, None]).squeeze(1) - logits.scatter(1, y[:, None], -math.inf).amax(1)

    assert (lead(model(x_adv)) < lead(model(x)) - 1e-3).all()


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (Affine(1.0, rotation=-1), "must be >= 0"),
        (Affine(1.0, scale=(1.1, 1.2)), "around 1"),
        (Affine(1.0, shear=1.0), "above 0"),
        (Affine(1.0, padding="wrap"), "choices: border"),
        (Photometric(1.0, contrast=(-1, 2)), "contrast"),
        (Photometric(-0.5), "eps must be >= 0"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(x, threat, words):
    with pytest.raises(InputError, match=words):
        threat.check(x)


def test_what_such_a_threat_does_not_have(x):
    with pytest.raises(Unsupported, match="mask"):
        Affine(1.0, mask=torch.ones(9, 12)).check(x)
    with pytest.raises(Unsupported, match="two images"):
        Photometric(1.0).size(x, x)
