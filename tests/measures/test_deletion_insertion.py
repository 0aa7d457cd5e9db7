"""Deletion and insertion against closed forms, the authors' algorithm step by step, and Quantus."""

import warnings

import pytest
import torch
from torch import nn

from underfire.attribution.chunks import image_chunk
from underfire.attribution.fills import fill_image
from underfire.errors import InputError, ModelError
from underfire.measures import deletion_insertion as game


def linear_model(weight):
    """Two classes; the first has the logit `weight · x`, the second 0."""

    def model(x):
        score = (x * weight).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], 1)

    return model


@pytest.fixture
def case(generator):
    x = torch.rand(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return linear_model(weight), x, torch.zeros(3, dtype=torch.int64), (x * weight).sum(1, keepdim=True)


def test_the_curve_of_a_linear_model_in_closed_form(case):
    """What is left of the logit is the sum of the contributions that are left."""
    model, x, y, m = case
    ordered = m.flatten(1).sort(dim=1, descending=True).values
    gone = torch.cat([torch.zeros(3, 1, dtype=torch.float64), ordered.cumsum(1)], 1)
    wanted = (gone[:, -1:] - gone).sigmoid()
    curve = game.deletion_curve(model, x, y, m, steps=20)
    assert torch.allclose(curve, wanted)
    area = (wanted[:, 1:] + wanted[:, :-1]).sum(1) / 2 / 20
    assert torch.allclose(game.deletion(model, x, y, m), area)
    # Where nothing is put back but pixels on black, insertion is the same sum from the other end.
    back = game.insertion_curve(model, x, y, m, steps=20, fill="black")
    assert torch.allclose(back, gone.sigmoid())


def test_no_order_deletes_a_linear_model_faster_than_its_contributions(case, generator):
    model, x, y, m = case
    best = game.deletion(model, x, y, m)
    for _ in range(5):
        other = torch.rand(m.shape, generator=generator, dtype=torch.float64)
        assert (game.deletion(model, x, y, other) >= best).all()
        assert (game.insertion(model, x, y, other, fill="black") <= game.insertion(model, x, y, m, fill="black")).all()


def slow_game(model, x, y, m, steps, start, finish):
    """The authors' loop: sort once, then move `pixels / steps` more pixels from one image to the other each time."""
    curves = []
    for i in range(len(x)):
        order = m[i].flatten().argsort(descending=True)
        per, image = len(order) // steps, start[i].clone()
        points = [model(image[None]).softmax(1)[0, y[i]]]
        for step in range(steps):
            for place in order[step * per : (step + 1) * per].tolist():
                image.view(len(image), -1)[:, place] = finish[i].reshape(len(image), -1)[:, place]
            points.append(model(image[None]).softmax(1)[0, y[i]])
        curves.append(torch.stack(points))
    return torch.stack(curves)


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_as_the_authors_do_it(network, generator, fill, chunk):
    model = network("relu", torch.float64)
    x = torch.rand(3, 3, 12, 12, generator=generator, dtype=torch.float64)
    m = torch.rand(3, 1, 12, 12, generator=generator, dtype=torch.float64)
    y, other = torch.tensor([0, 1, 3]), fill_image(x, fill)
    with torch.no_grad():
        away, back = slow_game(model, x, y, m, 16, x, other), slow_game(model, x, y, m, 16, other, x)
    assert torch.allclose(game.deletion_curve(model, x, y, m, steps=16, fill=fill, chunk=chunk), away)
    assert torch.allclose(game.insertion_curve(model, x, y, m, steps=16, fill=fill, chunk=chunk), back)


def test_the_same_curve_as_quantus(network, generator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus", exc_type=ImportError)
    model = network("relu")
    x = torch.rand(3, 3, 12, 12, generator=generator)
    m = torch.rand(3, 1, 12, 12, generator=generator)
    y = torch.tensor([0, 1, 3])
    flipping = quantus.PixelFlipping(
        features_in_step=3 * 12, perturb_baseline=0.0, normalise=False, abs=False, disable_warnings=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = flipping(model, x.numpy(), y.numpy(), m.numpy(), softmax=True, channel_first=True)
    ours = game.deletion_curve(model, x, y, m, steps=12)
    assert torch.allclose(ours[:, 1:], torch.tensor(theirs, dtype=torch.float32), atol=1e-6)


def test_steps_that_do_not_divide_the_pixels(case):
    model, x, y, m = case
    assert game.deletion_curve(model, x, y, m, steps=7).shape == (3, 8)
    assert game.deletion_curve(model, x, y, m).shape == (3, 21)  # never more steps than pixels
    assert (game.deletion(lambda x: x.new_zeros(len(x), 4), x, y, m, steps=7) - 0.25).abs().max() < 1e-12


def test_a_coarse_map_is_brought_to_the_image(case):
    model, x, y, _ = case
    coarse = torch.tensor([[[[3.0, 0.0], [1.0, 2.0]]]]).expand(3, 1, 2, 2).double()
    fine = nn.functional.interpolate(coarse, size=(4, 5), mode="bilinear")
    assert torch.equal(game.deletion(model, x, y, coarse), game.deletion(model, x, y, fine))


def test_a_constant_map_has_no_curve(case):
    model, x, y, m = case
    m = m.clone()
    m[1] = 0.5
    m[2, 0, 0, 0] = torch.nan
    assert game.deletion(model, x, y, m).isnan().tolist() == [False, True, True]
    assert game.insertion(model, x, y, m).isnan().tolist() == [False, True, True]


def test_the_blur_has_eleven_pixels_and_sigma_five(generator):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = torch.rand(2, 3, 16, 14, generator=generator, dtype=torch.float64)
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, 5.0, 5.0), radius=(0, 0, 5, 5), mode="mirror")
    assert torch.allclose(fill_image(x, "blur"), torch.from_numpy(wanted))
    flat = torch.full((2, 1, 1, 3), 0.3)  # smaller than the kernel
    assert torch.allclose(fill_image(flat, "blur"), flat)


def test_the_model_is_asked_no_more_than_the_curve_needs(network, generator):
    model = network("relu")
    x, m = torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 1, 8, 8, generator=generator)
    model.train()
    with model.counting() as count:
        game.deletion(model, x, torch.tensor([0, 1]), m, steps=16)
    assert count.forwards == 2 * 17
    assert count.backwards == 0
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_bad_input(case):
    model, x, y, m = case
    with pytest.raises(InputError, match="steps.* got 0"):
        game.deletion(model, x, y, m, steps=0)
    with pytest.raises(InputError, match="chunk.* got 0"):
        game.deletion(model, x, y, m, chunk=0)
    with pytest.raises(InputError, match="'pink' .* black, mean, blur"):
        game.deletion(model, x, y, m, fill="pink")
    with pytest.raises(InputError, match=r"class 2 is outside"):
        game.deletion(model, x, torch.tensor([0, 1, 2]), m)
    with pytest.raises(InputError, match=r"int64 \[3\]"):
        game.deletion(model, x, y[:2], m)
    with pytest.raises(InputError, match="images and maps"):
        game.deletion(model, x, y, m[:2])
    with pytest.raises(ModelError, match="logits for 3 of 3"):
        game.deletion(lambda x: model(x) / 0, x, y, m)
    with pytest.raises(ModelError, match=r"\[\d+, K\], got \(\d+,\)"):
        game.deletion(lambda x: model(x)[:, 0], x, y, m)


def test_no_images_have_no_areas(case):
    model, x, y, m = case
    assert game.deletion(model, x[:0], y[:0], m[:0]).shape == (0,)


def test_how_many_go_at_once():
    assert image_chunk(torch.zeros(1, 3, 224, 224), None) == 1
    assert image_chunk(torch.zeros(1, 3, 32, 32), None) == 85
    assert image_chunk(torch.zeros(1, 3, 32, 32), 7) == 7
