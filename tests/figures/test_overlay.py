import base64
import io
from itertools import pairwise

import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from tests.networks import rand
from underfire import figures
from underfire.errors import InputError
from underfire.figures import overlay

GREY = torch.full((3, 8, 8), 0.5)


def luminance(colour):
    """Relative luminance of an RGB colour in [0, 1], as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ramp(low=0.0, high=1.0):
    return torch.linspace(low, high, 64).reshape(1, 8, 8)


def test_the_ends_of_a_map_have_the_ends_of_the_colours():
    found = figures.heatmap(ramp(), GREY)
    first, last = (torch.tensor(colormaps[overlay.SEQUENTIAL](v)[:3]).float() for v in (0.0, 1.0))
    torch.testing.assert_close(found[:, 0, 0], 0.35 * first + 0.65 * 0.5)
    torch.testing.assert_close(found[:, -1, -1], 0.9 * last + 0.1 * 0.5)


def test_a_map_of_one_sign_rises_in_lightness():
    found = figures.heatmap(ramp(), GREY).flatten(1).T
    lightness = [luminance(c.tolist()) for c in found]
    assert all(a <= b for a, b in pairwise(lightness))
    assert contrast(found[0].tolist(), found[-1].tolist()) > 3


def test_sign_is_told_by_two_colours_equally_far_from_zero():
    found = figures.heatmap(ramp(-1, 1), GREY)
    against, none, favour = found[:, 0, 0], found[:, 3, 7], found[:, -1, -1]
    assert against[2] > against[0] + 0.1  # violet
    assert favour[0] > favour[2] + 0.3  # orange
    assert (none.max() - none.min()) < 0.05
    mirrored = figures.heatmap(ramp(1, -1), GREY)
    torch.testing.assert_close(mirrored.flip(1, 2), found)


def test_scale_does_not_matter_and_shift_matters_only_by_its_sign():
    assert torch.allclose(figures.heatmap(ramp() * 1e-6, GREY), figures.heatmap(ramp(), GREY), atol=1e-2)
    assert torch.allclose(figures.heatmap(ramp(5, 6), GREY), figures.heatmap(ramp(), GREY), atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_a_constant_map_leaves_the_grey_image(value):
    image = rand(3, 8, 8)
    found = figures.heatmap(torch.full((1, 2, 2), value), image)
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])


def test_one_extreme_pixel_does_not_darken_the_others():
    m = torch.zeros(1, 40, 40)
    m[:, :20] = 1.0
    spiked = m.clone()
    spiked[0, 0, 0] = 1000.0
    grey = torch.full((1, 40, 40), 0.5)
    torch.testing.assert_close(figures.heatmap(spiked, grey), figures.heatmap(m, grey))


def test_a_map_with_a_single_pixel_is_drawn_and_one_that_cancels_is_not():
    spot = torch.zeros(1, 40, 40)
    spot[0, 3, 3] = 1.0
    found = figures.heatmap(spot, torch.zeros(1, 40, 40))
    assert found[1, 3, 3] > 0.7 > 0.1 > found[1, 30, 30]
    stripes = torch.tensor([1.0, -1.0]).repeat(1, 16, 8)
    assert figures.heatmap(stripes, torch.zeros(1, 8, 8)).isfinite().all()


def test_any_float_type_size_and_channel_count():
    for dtype in (torch.float64, torch.bfloat16):
        for channels in (1, 3):
            found = figures.heatmap(ramp().to(dtype).requires_grad_(), rand(channels, 20, 30).to(dtype))
            assert found.shape == (3, 20, 30)
            assert found.dtype == torch.float32
            assert 0 <= found.min() <= found.max() <= 1


def test_magnify_names_its_factor():
    x = torch.full((1, 2, 2), 0.5)
    x_adv = x + torch.tensor([[[0.05, -0.025], [0.0, 0.0]]])
    found, factor = figures.magnify(x, x_adv)
    assert factor == pytest.approx(10)
    assert found[0].flatten().tolist() == pytest.approx([1.0, 0.25, 0.5, 0.5])
    nothing, one = figures.magnify(x, x)
    assert one == 1
    assert torch.equal(nothing, torch.full((3, 2, 2), 0.5))


def test_a_png_holds_the_pixels():
    image = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0)) / 255
    back = Image.open(io.BytesIO(figures.to_png_bytes(image)))
    assert (back.format, back.size, back.mode) == ("PNG", (7, 5), "RGB")
    assert list(back.tobytes()) == (image * 255).round().byte().permute(1, 2, 0).flatten().tolist()


def test_small_images_grow_by_whole_factors():
    image = torch.tensor([[[0.0, 1.0]]])
    back = Image.open(io.BytesIO(figures.to_png_bytes(image, at_least=3)))
    assert back.size == (6, 3)
    assert list(back.convert("L").tobytes()) == [0, 0, 0, 255, 255, 255] * 3
    assert Image.open(io.BytesIO(figures.to_png_bytes(torch.zeros(3, 9, 9), at_least=3))).size == (9, 9)


def test_a_data_uri_is_the_png():
    head, _, body = figures.to_data_uri(GREY).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == figures.to_png_bytes(GREY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.heatmap(torch.zeros(8, 8), GREY), r"\[1, h, w\], got \(8, 8\)"),
        (lambda: figures.heatmap(torch.full((1, 2, 2), torch.inf), GREY), "finite"),
        (lambda: figures.to_png_bytes(torch.zeros(2, 8, 8)), r"one or three channels, got \(2, 8, 8\)"),
        (lambda: figures.to_png_bytes(torch.full((3, 8, 8), torch.nan)), "NaN"),
        (lambda: figures.magnify(GREY, GREY[:1]), r"\(3, 8, 8\) and \(1, 8, 8\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
