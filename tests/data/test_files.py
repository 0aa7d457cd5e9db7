"""Data in files: IDX, Parquet, folders; whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from underfire import data
from underfire.data import parquet
from underfire.errors import DataError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def png(colour: tuple[int, int, int], size: tuple[int, int] = (4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def colours(x: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(int(255 * v) for v in image[:, 0, 0]) for image in x]


# --- IDX ---


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([7, 2, 1], dtype=np.uint8)))
    return tmp_path


def test_idx_files_packed_or_not(mnist: Path) -> None:
    dataset = data.load(f"mnist:{mnist}")
    batch = dataset[[2, 0]]
    assert len(dataset) == 3 and batch.x.shape == (2, 1, 4, 5)
    assert torch.equal(batch.x[0, 0], torch.arange(40, 60).reshape(4, 5) / 255)
    assert batch.y.tolist() == [1, 7] and batch.ids == ("test-00002", "test-00000")


@pytest.mark.slow
def test_idx_files_that_are_damaged(mnist: Path) -> None:
    with pytest.raises(DataError, match="there is no train-images-idx3-ubyte.gz"):
        data.load(f"mnist:{mnist}?split=train")
    packed = mnist / "t10k-images-idx3-ubyte.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-12])
    with pytest.raises(DataError, match="cannot be unpacked"):
        data.load(f"mnist:{mnist}")[:]
    packed.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="cannot be unpacked"):
        data.load(f"mnist:{mnist}")
    packed.write_bytes(gzip.compress(idx(np.zeros((3, 4, 5), dtype=np.uint8))[:-1]))
    with pytest.raises(DataError, match=r"\[3, 4, 5\] .* 59 bytes"):
        data.load(f"mnist:{mnist}")[:]
    packed.write_bytes(gzip.compress(b"\1\2\3\4\5\6\7\10\11"))
    with pytest.raises(DataError, match="not an IDX file"):
        data.load(f"mnist:{mnist}")[:]
    packed.write_bytes(gzip.compress(idx(np.zeros((2, 4, 5), dtype=np.uint8))))
    with pytest.raises(DataError, match="2 images .* 3 labels"):
        data.load(f"mnist:{mnist}")[:]


def test_mnist_itself(data_root: Path) -> None:
    dataset = data.load(f"mnist:{data_root / 'mnist'}")
    assert len(dataset) == 10_000
    assert dataset[:10].y.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# --- Parquet ---


def table(
    path: Path, column: str = "img", *, bare: bool = False, labels: list[int] | None = None, **metadata: str
) -> str:
    cells = [png(colour) if bare else {"bytes": png(colour), "path": ""} for colour in COLOURS]
    made = pa.table({column: cells, "label": labels or [0, 1, 2, 3, 4]})
    pq.write_table(made.replace_schema_metadata(metadata), path, row_group_size=2)
    return f"parquet:{path}"


@pytest.mark.parametrize(("column", "bare"), [("img", False), ("image", False), ("image", True)])
def test_parquet_across_row_groups(tmp_path: Path, column: str, bare: bool) -> None:
    batch = data.load(table(tmp_path / "x.parquet", column, bare=bare))[[4, 0, 3, 0]]
    assert colours(batch.x) == [COLOURS[i] for i in (4, 0, 3, 0)]
    assert batch.y.tolist() == [4, 0, 3, 0]
    assert batch.ids == ("row-000004", "row-000000", "row-000003", "row-000000")


def test_parquet_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = table(tmp_path / "x.parquet")
    seen: list[str] = []
    monkeypatch.setattr(parquet, "decode", lambda content, *, name, reading: seen.append(name) or torch.zeros(3, 1, 1))
    dataset = data.load(uri, n=4).shard(0, 2)
    assert seen == []
    dataset[:1]
    assert len(seen) == 1


def test_parquet_class_names_come_from_its_metadata(tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["a", "b", "c", "d"]}}}}
    dataset = data.load(table(tmp_path / "x.parquet", huggingface=json.dumps(features)))
    assert dataset.labels == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="label 4 .*'row-000004' .* 3"):
        dataset[:]
    assert data.load(table(tmp_path / "y.parquet")).labels is None
    with pytest.raises(DataError, match="label -1 .*'row-000002'"):
        data.load(table(tmp_path / "z.parquet", labels=[0, 1, -1, 0, 0]))[:]


def test_parquet_files_that_are_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        data.load(f"parquet:{tmp_path / 'missing.parquet'}")
    (tmp_path / "words.parquet").write_text("these are words")
    with pytest.raises(DataError, match="is not a Parquet file"):
        data.load(f"parquet:{tmp_path / 'words.parquet'}")
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="no column image.* 'text', 'label'"):
        data.load(f"parquet:{tmp_path / 'text.parquet'}")
    cells = pa.table({"image": [png(COLOURS[0]), b"", None], "label": [0, 1, 2]})
    pq.write_table(cells, tmp_path / "cells.parquet")
    dataset = data.load(f"parquet:{tmp_path / 'cells.parquet'}")
    assert len(dataset[0]) == 1
    with pytest.raises(DataError, match="row 1' is empty"):
        dataset[1]
    with pytest.raises(DataError, match="no image .* row 2"):
        dataset[2]
    pq.write_table(pa.table({"image": [png(COLOURS[0])], "label": [0.5]}), tmp_path / "halves.parquet")
    with pytest.raises(DataError, match="halves.parquet' must have integers"):
        data.load(f"parquet:{tmp_path / 'halves.parquet'}")


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        (pa.array([0.0, 1.0]), None),
        (pa.array([0, 1], pa.uint8()), None),
        (pa.array([0, 1]).dictionary_encode(), None),
        (pa.array(["a", "b"], pa.string_view()), None),
        (pa.array([0, None]), "no label in row 1"),
        (pa.array(["a", None]), "no label in row 1"),
        (pa.array([0, 2**63], pa.uint64()), f"{2**63} in row 1"),
        (pa.array([0.0, float("nan")]), "nan in row 1"),
        (pa.array([[0], [1]]), "integers or names"),
    ],
    ids=str,
)
def test_parquet_labels_of_every_type(tmp_path: Path, labels: pa.Array, fact: str | None) -> None:
    images = pa.array([png(colour) for colour in COLOURS[:2]], pa.binary_view())
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "x.parquet")
    uri = f"parquet:{tmp_path / 'x.parquet'}"
    if fact is None:
        assert data.load(uri)[:].y.tolist() == [0, 1]
        return
    with pytest.raises(DataError, match=fact) as caught:
        data.load(uri)
    assert "\n" not in str(caught.value)


def test_cifar10_itself(data_root: Path) -> None:
    dataset = data.load(f"parquet:{data_root / 'cifar10-test.parquet'}")
    assert len(dataset) == 10_000
    batch = dataset[[0, 9_999]]
    assert batch.x.shape == (2, 3, 32, 32)
    assert batch.y.tolist() == [3, 7]  # a cat and a horse, as in the official order
    assert (batch.x[0, :, 0, 0] * 255).round().tolist() == [158, 112, 49]  # the first pixel of the official file


# --- folders ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, name in enumerate(("b/two.png", "a/one.PNG", "c/three.jpg", "c/four.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(COLOURS[place]))
    (tmp_path / "c" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "README").write_text("no class")
    return tmp_path


def test_sorted_folders_are_the_classes(folder: Path) -> None:
    dataset = data.load(f"folder:{folder}")
    assert dataset.labels == ("a", "b", "c")
    batch = dataset[:]
    assert batch.ids == ("a/one.PNG", "b/two.png", "c/four.png", "c/three.jpg")
    assert batch.y.tolist() == [0, 1, 2, 2]
    assert colours(batch.x) == [COLOURS[i] for i in (1, 0, 3, 2)]


def test_a_list_of_classes_numbers_the_folders(folder: Path) -> None:
    classes = [{"synset": s, "name": f"class {s}"} for s in ("c", "absent", "b", "a")]
    (folder / "classes.json").write_text(json.dumps(classes))
    dataset = data.load(f"folder:{folder}")
    assert dataset.labels == ("class c", "class absent", "class b", "class a")
    assert dataset[:].y.tolist() == [3, 2, 0, 0]
    (folder / "classes.json").write_text(json.dumps(classes[1:]))
    with pytest.raises(DataError, match="folder 'c' .* the classes"):
        data.load(f"folder:{folder}")
    (folder / "classes.json").write_text('["c", "b", "a"]')
    assert data.load(f"folder:{folder}").labels == ("c", "b", "a")


def test_a_folder_is_lazy_and_names_the_image_it_cannot_read(folder: Path) -> None:
    (folder / "b" / "two.png").write_bytes(png(COLOURS[0])[:40])
    dataset = data.load(f"folder:{folder}", n=4)
    assert len(dataset) == 4
    with pytest.raises(DataError, match="two.png' cannot be read"):
        dataset[:]


def test_images_of_different_sizes_need_one(folder: Path) -> None:
    (folder / "b" / "two.png").write_bytes(png(COLOURS[0], (9, 8)))
    with pytest.raises(DataError, match=r"one.PNG' \(4x3\) .*two.png' \(9x8\)"):
        data.load(f"folder:{folder}")[:]
    assert data.load(f"folder:{folder}?size=6")[:].x.shape == (4, 3, 6, 6)


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        data.load(f"folder:{tmp_path / 'missing'}")
    with pytest.raises(DataError, match="class folders"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="size .* got '-3'"):
        data.load(f"folder:{tmp_path}?size=-3")


def test_imagenet_sample_itself(data_root: Path) -> None:
    dataset = data.load(f"folder:{data_root / 'imagenet_sample'}?size=224")
    assert len(dataset) == 1000 and dataset.labels is not None
    batch = dataset[[0, 1, 999]]
    assert batch.y.tolist() == [0, 1, 999] and batch.x.shape == (3, 3, 224, 224)
    assert (dataset.labels[0], dataset.labels[1]) == ("tench", "goldfish")


def test_masks_follow_their_images(tmp_path: Path) -> None:
    """A mask is found by its name, and scaled and cropped as the image."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for number, name in enumerate(("one", "two")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        pixels = np.zeros((16, 24, 3), np.uint8)
        pixels[4 : 8 + number, 8:16] = 255
        Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{name}.png")
        Image.fromarray(pixels[:, :, 0]).save(masks / f"{name}.bmp")
    uri = f"folder:{tmp_path / 'photos'}"
    for size in ("", "size=7&"):
        batch = data.load(f"{uri}?{size}masks={masks}")[:]
        assert batch.mask is not None
        assert batch.mask.shape == (2, 1, *batch.x.shape[2:])
        assert torch.equal(batch.mask, batch.x[:, :1] > 0.5)
    assert data.load(uri)[:].mask is None
    with pytest.raises(DataError, match="masks=FOLDER"):
        data.load(f"{uri}?masks={tmp_path / 'nowhere'}")
    Image.new("L", (24, 16)).save(masks / "one.png")
    with pytest.raises(DataError, match=r"1 of 2 .*one\.png"):
        data.load(f"{uri}?masks={masks}")
    (masks / "one.png").unlink()
    (masks / "two.bmp").unlink()
    with pytest.raises(DataError, match=r"1 of 2 .*two\.png"):
        data.load(f"{uri}?masks={masks}")
