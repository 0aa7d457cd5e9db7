"""A wrong image is named in one line, and nothing is half-written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.specs import Fails, spec

pytestmark = pytest.mark.slow  # they run the command line


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 100,000 by 100,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def whole_png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save("whole.png")
    return Path("whole.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: b"", "is empty, not an image"),
        (lambda: whole_png()[:400], "cannot be read as an image"),
        (lambda: b"<html>not found</html>", "cannot be read as an image: no known format"),
        (bomb, "more than the"),
    ],
)
def test_a_wrong_image(fails: Fails, content: Callable[[], bytes], says: str) -> None:
    Path("photos/red").mkdir(parents=True)
    Path("photos/red/one.png").write_bytes(content())
    model = ("--model", "python:victims:colour")
    for message in (
        fails("explain", "gradient", "photos/red/one.png", *model),
        fails("attack", "pgd", "photos", *model),
        fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run"),
    ):
        assert says in message and "one.png" in message


def test_pixels_outside_the_box(fails: Fails) -> None:
    Path("photos/red").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 7.0, dtype=np.float32)).save("photos/red/one.tif")
    says = "has pixels from 7 to 7, outside [0, 1]"
    assert says in fails("explain", "gradient", "photos/red/one.tif", "--model", "python:victims:colour")
    assert says in fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run")


def test_labels_outside_the_classes(fails: Fails) -> None:
    for name in ("blue", "green", "red"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (8, 8), name).save(f"photos/{name}/one.png")
    says = fails("audit", spec(data="folder:photos", model="python:victims:colour"), "--out", "run")
    assert "label 2 of 'red/one.png' is outside the model's 2 classes (0 to 1)" in says
    says = fails("attack", "fgsm", "folder:photos", "--model", "python:victims:colour")
    assert "label 2 is outside the model's 2 classes (0 to 1)" in says


def test_a_place_without_images(fails: Fails) -> None:
    Path("empty").mkdir()
    model = ("--model", "python:victims:colour")
    assert "no such image, folder or data URI: 'nothing.png'" in fails("explain", "gradient", "nothing.png", *model)
    says = fails("explain", "gradient", "digits", *model)
    assert "no such image, folder or data URI: 'digits'; the data URI is digits:" in says
    assert "no images in 'empty'" in fails("explain", "gradient", "empty", *model)
    assert "there is no folder 'nothing'" in fails("audit", spec(data="folder:nothing"), "--out", "run")


def test_images_of_another_size_than_the_model(fails: Fails) -> None:
    whole_png()
    says = fails("attack", "fgsm", "whole.png", "--model", "python:victims:right")
    assert "the model does not take inputs of shape [1, 1, 16, 16]" in says
