"""JPEG in torch against Pillow's codec, and its gradient against the linear map it stands for."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.networks import randn
from underfire.errors import InputError
from underfire.transforms import jpeg as codec
from underfire.transforms.jpeg import jpeg, quantisation


def picture(channels, height, width):
    """Smooth shapes and some texture, in whole grey levels `[1, C, H, W]`."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, channels, 6, 7, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    x = x + 0.06 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return (x.clamp(0, 1) * 255).round() / 255


def pillow(x, quality, subsampling):
    array = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().squeeze()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    back = np.asarray(Image.open(buffer), dtype=np.float64).reshape(*array.shape[:2], -1)
    return torch.from_numpy(back.copy()).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (37, 43)])
def test_the_values_of_pillow(quality, subsample, size):
    """But for a coefficient here and there that falls to the other side of a half; odd sides are padded alike."""
    x = picture(3, *size)
    difference = 255 * (jpeg(x, quality, subsample=subsample) - pillow(x, quality, 2 if subsample else 0)).abs()
    assert difference.mean() < 0.6
    assert (difference <= 3).double().mean() > 0.96
    assert 255 * (jpeg(x, quality) - x).abs().mean() > 2 * difference.mean()


@pytest.mark.parametrize("quality", [20, 90])
def test_one_channel_is_grey(quality):
    x = picture(1, 33, 40)
    difference = 255 * (jpeg(x, quality) - pillow(x, quality, 0)).abs()
    assert difference.max() < 3.5
    assert difference.mean() < 0.2


def test_the_tables_of_pillow():
    for quality in (1, 10, 49, 50, 75, 100):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, format="JPEG", quality=quality)
        theirs = Image.open(buffer).quantization
        ours = quantisation(torch.tensor([quality]))[0]
        assert [theirs[0], theirs[1]] == [table.int().tolist() for table in ours]


def test_a_quality_per_sample():
    x = picture(3, 24, 32).expand(2, -1, -1, -1)
    both = jpeg(x, torch.tensor([30.0, 90.0]))
    assert torch.equal(both[:1], jpeg(x[:1], 30))
    assert torch.equal(both[1:], jpeg(x[1:], 90))


@pytest.mark.parametrize("subsample", [False, True])
def test_the_gradient_is_that_of_the_unrounded_codec(monkeypatch, subsample):
    """Straight through: central differences of the same codec without rounding, which is linear away from the ends."""
    x = 0.3 + 0.4 * picture(3, 16, 16)
    weights = randn(x.shape, seed=1, dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((jpeg(x, 90, subsample=subsample) * weights).sum(), x)
    monkeypatch.setattr(codec, "replaced", lambda v, value: v)
    x = x.detach()
    for place in [(0, 0, 0, 0), (0, 1, 7, 9), (0, 2, 15, 15)]:
        step = torch.zeros_like(x)
        step[place] = 1e-3
        ahead, behind = ((jpeg(x + s, 90, subsample=subsample) * weights).sum() for s in (step, -step))
        assert gradient[place] == pytest.approx(((ahead - behind) / 2e-3).item(), abs=1e-6)
    if not subsample:
        assert torch.allclose(gradient, weights, atol=1e-6)


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_out_of_range(quality):
    with pytest.raises(InputError, match="from 1 to 100"):
        jpeg(picture(3, 8, 8), quality)
