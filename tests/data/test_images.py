"""Image files of every mode and size, and files that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from underfire.data import read_image
from underfire.data.images import Reading, decode
from underfire.errors import DataError

RED = [1.0, 0.0, 0.0]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(image: Image.Image, kind: str = "PNG", size: int | None = None, **options: object) -> Tensor:
    return decode(encoded(image, kind, **options), name="test", reading=Reading(size))


def test_every_mode_becomes_rgb() -> None:
    red = Image.new("RGB", (5, 4), (255, 0, 0))
    for mode, kind in (("RGB", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "TIFF")):
        image = read(red.convert(mode), kind)
        assert image.shape == (3, 4, 5) and image.dtype == torch.float32, mode
        assert torch.allclose(image[:, 0, 0], torch.tensor(RED), atol=0.02), mode
    for mode, value in (("L", 51), ("LA", (51, 255)), ("1", 1)):
        expected = 1.0 if mode == "1" else 0.2
        assert torch.allclose(read(Image.new(mode, (5, 4), value)), torch.full((3, 4, 5), expected)), mode


def test_sixteen_bits_keep_their_depth() -> None:
    grey = Image.fromarray(np.array([[0, 1, 257], [32768, 65534, 65535]], dtype=np.uint16))
    image = read(grey)
    assert torch.allclose(image[1] * 65535, torch.tensor([[0.0, 1, 257], [32768, 65534, 65535]]), atol=0.01)


def test_floats_must_be_in_the_box() -> None:
    inside = Image.fromarray(np.array([[0.0, 0.25, 1.0]], dtype=np.float32))
    assert read(inside, "TIFF")[0].tolist() == [[0.0, 0.25, 1.0]]
    outside = Image.fromarray(np.array([[0.0, 200.0]], dtype=np.float32))
    with pytest.raises(DataError, match="from 0 to 200"):
        read(outside, "TIFF")


def test_what_is_transparent_shows_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    assert read(image)[:, 0].T.tolist() == [RED, [1.0, 1.0, 1.0]]


def test_a_camera_held_upright() -> None:
    image = Image.new("RGB", (6, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert read(image, "JPEG", exif=exif).shape == (3, 6, 2)


def test_the_middle_at_imagenet_scale_is_copied_pixel_for_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    image = read(Image.fromarray(pixels), size=224)
    assert torch.equal(image, torch.from_numpy(pixels[16:240, 38:262]).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3000), (3000, 7), (500, 400), (20, 30)])
def test_any_size_is_fitted(shape: tuple[int, int]) -> None:
    for mode, value in (("RGB", (51, 102, 153)), ("I;16", 13107)):
        image = read(Image.new(mode, shape, value), size=32)
        assert image.shape == (3, 32, 32)
        expected = torch.tensor([0.2, 0.4, 0.6] if mode == "RGB" else [0.2, 0.2, 0.2])
        assert torch.allclose(image, expected[:, None, None].expand(3, 32, 32), atol=1e-6)


def test_a_ramp_is_scaled_without_a_shift() -> None:
    ramp = np.linspace(0, 1, 512, dtype=np.float32)[None].repeat(512, 0)
    middle = read(Image.fromarray(ramp), "TIFF", size=56)[0, 28]
    assert torch.allclose(middle, torch.linspace(0.0625, 0.9375, 57)[:-1] + 0.0078, atol=2e-3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_one_clear_line(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), kind)
    for length in (1, 10, len(content) // 4, len(content) // 2):
        with pytest.raises(DataError, match="^'test' cannot be read") as caught:
            decode(content[:length], name="test")
        assert "\n" not in str(caught.value)


def test_damaged_bytes_never_raise_anything_else() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "TIFF"):
        content = bytearray(encoded(Image.fromarray(pixels), kind))
        for _ in range(40):
            damaged = content.copy()
            for place in random.integers(0, len(content), 4):
                damaged[place] = random.integers(0, 256)
            try:
                image = decode(bytes(damaged), name="test", reading=Reading(8))
            except DataError:
                continue
            assert image.shape == (3, 8, 8)


def test_no_image_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'test' is empty"):
        decode(b"", name="test")
    with pytest.raises(DataError, match="cannot be read"):
        decode(b"these are words", name="test")
    with pytest.raises(DataError, match="there is no image file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="size .* got 0"):
        read(Image.new("L", (2, 2)), size=0)


@pytest.mark.slow
def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    for side in (10_000, 20_000):  # Pillow warns of the first and refuses the second
        path = tmp_path / f"{side}.png"
        Image.new("1", (side, side)).save(path)
        with pytest.raises(DataError, match=f"{side}.png' .* 40000000 .*max_pixels"):
            read_image(path)
