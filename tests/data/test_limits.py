"""Small files that unpack to much: refused before they are unpacked, unless an option allows it."""

from __future__ import annotations

import gzip
import io
import resource
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.data.test_files import COLOURS, idx, png
from underfire import data
from underfire.data.images import Reading, gather
from underfire.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    return tmp_path


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.parametrize("side", [7_000, 10_000, 20_000])
def test_images_of_too_many_pixels(folder: Path, side: int) -> None:
    Image.new("1", (side, side)).save(folder / "a" / "bomb.png")
    before = peak_mb()
    with pytest.raises(DataError, match=r"bomb.png' .*40000000 .*max_pixels"):
        data.load(f"folder:{folder}?size=8")[:]
    assert peak_mb() - before < 60


def test_an_option_allows_more_pixels(folder: Path) -> None:
    Image.new("1", (40, 30)).save(folder / "a" / "x.png")
    with pytest.raises(DataError, match="40 x 30 pixels.*max_pixels=1200"):
        data.load(f"folder:{folder}?max_pixels=1199")[:]
    assert data.load(f"folder:{folder}?max_pixels=1200")[:].x.shape == (1, 3, 30, 40)


def test_more_pixels_than_pillow_allows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (40, 30)).save(folder / "a" / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert data.load(f"folder:{folder}?max_pixels=1200")[:].x.shape == (1, 3, 30, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("option", ["size=100000", "size=9999999999999999", "size=0", "size=two", "max_pixels=-1"])
def test_sizes_that_cannot_be(folder: Path, option: str) -> None:
    (folder / "a" / "x.png").write_bytes(png(COLOURS[0]))
    with pytest.raises(DataError, match=option.split("=")[0]):
        data.load(f"folder:{folder}?{option}")


def test_a_batch_of_too_many_pixels_is_refused_at_its_first_image() -> None:
    seen: list[int] = []
    reading = Reading(max_pixels=100)

    with pytest.raises(DataError, match=r"17 images .*10 x 10"):
        gather([str(i) for i in range(17)], lambda i: seen.append(i) or torch.zeros(3, 10, 10), reading)
    assert seen == [0]
    assert len(gather([str(i) for i in range(16)], lambda i: torch.zeros(3, 10, 10), reading)) == 16


def test_a_file_that_is_too_large(folder: Path) -> None:
    with (folder / "a" / "x.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="larger than the 1024 MB"):
        data.load(f"folder:{folder}")[:]


@pytest.mark.slow
def test_idx_files_that_unpack_to_more_than_they_state(tmp_path: Path) -> None:
    images, labels = tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(2, dtype=np.uint8))))
    images.write_bytes(gzip.compress(idx(np.zeros((2, 4, 5), dtype=np.uint8)) + bytes(300_000_000), 1))
    before = peak_mb()
    with pytest.raises(DataError, match="holds more than 40 bytes"):
        data.load(f"mnist:{tmp_path}")[:]
    assert peak_mb() - before < 60


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 0, 5), "at least 1"),
        ((0, 4, 5), "at least 1"),
        ((2, 2**31, 2**31), "max_bytes="),
        ((2, 30_000, 30_000), "max_bytes=1800000000"),
        ((2, 4), "3 dimensions"),
        ((2, 4, 5, 3), "3 dimensions"),
        ((), "3 dimensions"),
    ],
)
def test_idx_files_of_zero_or_huge_dimensions(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, dtype=np.uint8)))
    with pytest.raises(DataError, match=said):
        data.load(f"mnist:{tmp_path}")[:]


def test_a_parquet_file_that_repeats_one_value(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    rows = 2_000  # 540 MB, written as one value of 0.27 MB
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([buffer.getvalue()]))
    pq.write_table(
        pa.table({"image": cells, "label": pa.array(np.zeros(rows, dtype=np.int64))}), tmp_path / "x.parquet"
    )
    before = peak_mb()
    assert len(data.load(f"parquet:{tmp_path / 'x.parquet'}", n=2)[:]) == 2
    assert peak_mb() - before < 200
    with pytest.raises(DataError, match="10000 are allowed, max_bytes="):
        data.load(f"parquet:{tmp_path / 'x.parquet'}?max_bytes=10000")


def test_an_archive_that_states_much(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 64, 64)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    with pytest.raises(DataError, match="max_bytes=4294967296"):
        data.load(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("scheme", ["folder", "csv", "parquet", "npz", "mnist"])
def test_a_device_is_no_data(scheme: str) -> None:
    with pytest.raises(DataError, match="/dev/zero"):
        data.load(f"{scheme}:/dev/zero")
