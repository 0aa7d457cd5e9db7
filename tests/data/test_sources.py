"""Folders of every layout, tables, archives and Python objects: nothing is dropped, shifted or refused in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.data.test_files import COLOURS, colours, png
from underfire import data
from underfire.errors import DataError

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Writes one picture to each name below a folder, and returns the folder: `fill("a/1.png", "b/2.png")`."""

    def write(*names: str) -> Path:
        for i, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(COLOURS[i % len(COLOURS)]))
        return tmp_path

    return write


# --- folders ---


def test_hidden_files_are_no_images(fill: Fill) -> None:
    folder = fill("a/1.png", "b/2.png", "a/._1.png", ".thumbs/3.png", "__MACOSX/a/4.png", "b/.x/5.png")
    assert data.load(f"folder:{folder}")[:].ids == ("a/1.png", "b/2.png")
    assert data.load(f"folder:{folder}").labels == ("a", "b")


def test_nested_and_empty_class_folders(fill: Fill) -> None:
    folder = fill("a/x/1.png", "a/2.png", "c/y/z/3.png")
    (folder / "b").mkdir()
    (folder / ".d").mkdir()
    dataset = data.load(f"folder:{folder}")
    assert dataset.labels == ("a", "b", "c") and dataset[:].y.tolist() == [0, 0, 2]
    assert "'b'" in dataset.notes[0] and "class=nearest" in dataset.notes[1]
    nearest = data.load(f"folder:{folder}?class=nearest")
    assert nearest.labels == ("a", "x", "z") and nearest[:].y.tolist() == [0, 1, 2]


def test_images_beside_the_class_folders_are_counted(fill: Fill) -> None:
    dataset = data.load(f"folder:{fill('a/1.png', 'b/2.png', '3.png', '4.png')}")
    assert len(dataset) == 2 and dataset.notes[0].startswith("2 images")


def test_folders_of_splits_are_no_classes(fill: Fill) -> None:
    with pytest.raises(DataError, match="'test', 'train'"):
        data.load(f"folder:{fill('train/a/1.png', 'test/a/2.png')}")


def test_numbers_as_folders_are_sorted_as_text_and_said(fill: Fill) -> None:
    folder = fill("1/1.png", "2/2.png", "10/3.png")
    dataset = data.load(f"folder:{folder}")
    assert dataset.labels == ("1", "10", "2") and len(dataset.notes) == 1
    kinds = dataset.ordered_as([f"kind {letter}" for letter in "abcdefghijk"])
    assert kinds[:].y.tolist() == [1, 10, 2]  # 1/1.png, 10/3.png, 2/2.png


def test_a_folder_without_class_folders_has_no_labels(fill: Fill) -> None:
    dataset = data.load(f"folder:{fill('1.png', '2.png')}")
    assert len(dataset) == 2 and not dataset.labelled and dataset.labels is None
    assert not data.load(f"folder:{fill('a/1.png')}?labels=model").labelled


def test_links_to_folders_are_followed_but_not_for_ever(fill: Fill) -> None:
    folder = fill("a/1.png", "b/2.png")
    (folder / "c").symlink_to(folder / "b")
    (folder / "a" / "above").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "b" / "other").symlink_to(folder / "a")
    ids = data.load(f"folder:{folder}")[:].ids
    assert {"a/1.png", "b/2.png", "c/2.png", "b/other/1.png"} <= set(ids) and len(ids) < 10


def test_names_that_are_not_utf8(fill: Fill) -> None:
    folder = fill("a/1.png")
    place = folder / "caf\udce9"
    place.mkdir()
    (place / "\udcff.png").write_bytes(png(COLOURS[0]))
    dataset = data.load(f"folder:{folder}")
    assert dataset.labels == ("a", "caf\\xe9") and dataset[:].ids == ("a/1.png", "caf\\xe9/\\xff.png")


def test_what_cannot_be_read_is_listed_together_and_can_be_left_out(fill: Fill) -> None:
    folder = fill("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    (folder / "a" / "2.png").write_bytes(b"")
    (folder / "b" / "3.png").write_bytes(png(COLOURS[0])[:40])
    (folder / "b" / "5.avif").write_bytes(b"whatever")
    (folder / "b" / "6.HEIC").write_bytes(b"whatever")
    (folder / "b" / "7.jpg").symlink_to(folder / "nowhere")
    (folder / "b" / "8.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    dataset = data.load(f"folder:{folder}")
    assert len(dataset) == 8
    for read in (dataset.check, lambda: dataset[:]):
        with pytest.raises(DataError, match="2.png.+3.png.+5.avif.+6.HEIC.+7.jpg.+8.png") as caught:
            read()
        assert "\n" not in str(caught.value)
    left = data.load(f"folder:{folder}?unreadable=skip")
    assert left[:].ids == ("a/1.png", "b/4.png") and left[:].y.tolist() == [0, 1]
    assert "6 of 8" in left.notes[-1]
    left.check()


def test_sizes_that_differ_are_counted(fill: Fill) -> None:
    folder = fill("a/1.png", "a/2.png", "b/3.png")
    (folder / "b" / "3.png").write_bytes(png(COLOURS[0], (9, 8)))
    with pytest.raises(DataError, match=r"4x3 \(2\), 9x8 \(1\)"):
        data.load(f"folder:{folder}").check()


def test_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("1.xcf", "2.xcf", "notes.txt"):
        (tmp_path / "a" / name).write_text("x")
    with pytest.raises(DataError, match=".xcf, 1 of .txt"):
        data.load(f"folder:{tmp_path}")


def test_grey_pictures(fill: Fill) -> None:
    folder = fill("a/1.png")
    Image.fromarray(np.array([[0, 51], [102, 255]], dtype=np.uint8)).save(folder / "a" / "1.png")
    Image.fromarray(np.array([[0, 257], [514, 65535]], dtype=np.uint16)).save(folder / "a" / "2.png")
    for dataset in (data.load(f"folder:{folder}?mode=L"), data.load(f"folder:{folder}", channels=1)):
        batch = dataset[:]
        assert batch.x.shape == (2, 1, 2, 2)
        assert torch.allclose(batch.x[0, 0], torch.tensor([[0, 0.2], [0.4, 1]]))
        assert torch.allclose(batch.x[1, 0] * 65535, torch.tensor([[0.0, 257], [514, 65535]]), atol=0.01)
    assert data.load(f"folder:{folder}?mode=RGB", channels=1)[:].x.shape == (2, 3, 2, 2)
    with pytest.raises(DataError, match="mode 'CMYK'"):
        data.load(f"folder:{folder}?mode=CMYK")


# --- tables ---


@pytest.mark.parametrize(
    ("table", "labels", "y"),
    [
        ("path,label\n1.png,1\nd/2.png,0\n", None, [1, 0]),
        ("\ufefflabel,File\r\nnewt,1.png\r\nlynx,d/2.png\r\n", ("lynx", "newt"), [1, 0]),
        ("1.png,newt\nd/2.png,lynx\n", ("lynx", "newt"), [1, 0]),
        ("path,label,label_2\n1.png,1.0,7\nd/2.png,0.0,7\n", None, [1, 0]),
        ("filename\n1.png\nd/2.png\n", None, [-1, -1]),
    ],
)
def test_tables_of_paths_and_labels(fill: Fill, table: str, labels: tuple[str, ...] | None, y: list[int]) -> None:
    file = fill("1.png", "d/2.png") / "x.csv"
    file.write_bytes(table.encode())
    dataset = data.load(f"csv:{file}")
    assert dataset.labels == labels and dataset.labelled == (y != [-1, -1])
    batch = dataset.answered_by(lambda x: torch.tensor(y))[:]
    assert batch.ids == ("1.png", "d/2.png") and colours(batch.x) == COLOURS[:2]
    assert not dataset.labelled or dataset[:].y.tolist() == y


def test_the_order_of_a_table_is_that_of_its_classes(fill: Fill) -> None:
    folder = fill("1.png", "2.png")
    (folder / "x.csv").write_text("path,kind\n1.png,newt\n2.png,lynx\n")
    (folder / "classes.json").write_text('["newt", "yak", "lynx"]')
    dataset = data.load(f"csv:{folder / 'x.csv'}?label=kind")
    assert dataset.labels == ("newt", "yak", "lynx") and dataset[:].y.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "first line"),
        (b"path,label\n", "first line"),
        (b"path,label\n1.png\n", "2 columns but 1 in row 1"),
        (b"path,label\n1.png,\n", "no label in row 1"),
        (b"a,b\nx,y\n", "'a', 'b'"),
        (b"path,b\n1.png,y\n", "label=COLUMN"),
        (b"path,path,label\n1.png,1.png,0\n", "'path' 2 times"),
        (b'path,label\n"1.png,0\n', "not a table"),
        (b"path,label\n\xff.png,0\n", "not a table"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        data.load(f"csv:{tmp_path / 'x.csv'}")
    assert "\n" not in str(caught.value)


def test_parquet_with_other_columns(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    cells = [png(colour) for colour in COLOURS[:3]]
    pq.write_table(pa.table({"Photo": cells, "target": [2, 0, 1], "animal": ["newt", "lynx", "newt"]}), file)
    assert data.load(f"parquet:{file}")[:].y.tolist() == [2, 0, 1]
    named = data.load(f"parquet:{file}?image=Photo&label=animal")
    assert named.labels == ("lynx", "newt") and named[[2, 1]].y.tolist() == [1, 0]
    with pytest.raises(DataError, match="'animall'; did you mean 'animal'"):
        data.load(f"parquet:{file}?label=animall")
    pq.write_table(pa.table({"image": cells}), file)
    assert not data.load(f"parquet:{file}").labelled
    numbers = pa.array([0, 1, 2])
    pq.write_table(pa.Table.from_arrays([pa.array(cells), numbers, numbers], ["image", "label", "label"]), file)
    with pytest.raises(DataError, match="'label' 2 times"):
        data.load(f"parquet:{file}")


# --- arrays ---


@pytest.mark.parametrize(
    "names", [("x", "y"), ("x_test", "y_test"), ("test_images", "test_labels"), ("arr_0", "arr_1")]
)
def test_archives_of_numpy(tmp_path: Path, names: tuple[str, str]) -> None:
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.savez(tmp_path / "x.npz", **{names[0]: images, names[1]: np.array([[1], [0]]), "classes": np.array(["a", "b"])})
    dataset = data.load(f"npz:{tmp_path / 'x.npz'}")
    assert dataset.labels == ("a", "b") and dataset[:].y.tolist() == [1, 0]
    assert torch.equal(dataset[1].x[0], torch.from_numpy(images[1]).permute(2, 0, 1) / 255)


def test_archives_of_every_shape(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    for shape, kind, wanted in (
        ((2, 4, 5), "f8", (2, 1, 4, 5)),
        ((2, 3, 4, 5), "f4", (2, 3, 4, 5)),
        ((2, 4, 5, 1), ">f4", (2, 1, 4, 5)),
    ):
        np.savez_compressed(file, images=np.full(shape, 0.5, dtype=kind))
        dataset = data.load(f"npz:{file}").answered_by(lambda x: torch.zeros(len(x), dtype=torch.int64))
        assert dataset[:].x.shape == wanted and bool((dataset[:].x == 0.5).all())
    for arrays, said in (
        ({"pictures": np.zeros((1, 2, 2))}, "'pictures'"),
        ({"x": np.zeros((1, 2, 2)), "y": np.zeros(3)}, "1 images but"),
        ({"x": np.zeros((1, 2, 2)), "y": np.array([0.5])}, "whole numbers"),
        ({"x": np.zeros((1, 2, 2), dtype=int)}, "uint8"),
        ({"x": np.array([{"a": 1}]), "y": np.zeros(1)}, "Python objects"),
        ({"x": np.zeros(4)}, r"\[4\]"),
    ):
        np.savez(file, **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=said):
            data.load(f"npz:{file}")
    file.write_bytes(b"PK\3\4 nothing")
    with pytest.raises(DataError, match="an archive of NumPy"):
        data.load(f"npz:{file}")


# --- Python ---


class Own:
    """A data set as torch's are, with names of its classes."""

    classes = ("dark", "light")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        if i >= 4:
            raise IndexError(i)
        images = [
            torch.full((1, 2, 2), i / 10),
            Image.new("L", (2, 2), 51),
            np.full((2, 2), 102, dtype=np.uint8),
            torch.full((1, 2, 2), 153, dtype=torch.uint8),
        ]
        return images[i], [0, torch.tensor(1), np.int64(0), "light"][i]


def stream() -> Iterator[tuple[Any, int]]:
    return (Own()[i] for i in range(4))


def broken() -> Own:
    raise RuntimeError("the disk is gone\nand more")


def leaves() -> Own:
    sys.exit(0)


class Odd(Own):
    def __getitem__(self, i: int) -> tuple[Any, Any]:
        if i == 2:
            raise KeyError("two")
        return (Own()[0][0], 0.5) if i == 3 else super().__getitem__(i)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("made_data")
    vars(made).update(Own=Own, own=Own(), stream=stream, stream_made=stream(), pairs=list(stream()), broken=broken)
    vars(made).update(leaves=leaves, Odd=Odd, number=7, loader=DataLoader(Own(), batch_size=2))  # type: ignore[arg-type]
    vars(made)["bare"] = [torch.zeros(1, 2, 2)] * 2
    monkeypatch.setitem(sys.modules, "made_data", made)
    return made


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("name", ["Own", "own", "loader"])
def test_a_data_set_of_python(name: str) -> None:
    dataset = data.load(f"python:made_data:{name}?mode=L")
    assert dataset.labels == ("dark", "light") and dataset[:].y.tolist() == [0, 1, 0, 1]
    assert torch.allclose(dataset[:].x[:, 0, 0, 0], torch.tensor([0.0, 0.2, 0.4, 0.6]))
    assert dataset[1].ids == (f"{name}-000001",)


@pytest.mark.usefixtures("module")
def test_streams_and_lists_of_python() -> None:
    for name in ("stream", "stream_made", "pairs"):
        dataset = data.load(f"python:made_data:{name}?mode=L&n=3".replace("&n=3", ""), n=3, seed=1)
        assert dataset.labels is None and dataset[0].x.shape == (1, 1, 2, 2)
    assert not data.load("python:made_data:bare").labelled


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("made_data:broken", "RuntimeError: the disk is gone"),
        ("made_data:leaves", "sys.exit"),
        ("made_data:number", "it is a int"),
        ("made_data:own2", "did you mean 'own'"),
        ("no_such_module:own", "no_such_module"),
        ("made_data", "package.module:name"),
        ("made_data:stream?max_bytes=3", "more than 3 bytes"),
    ],
)
def test_python_that_cannot_be(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        data.load(f"python:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("module")
def test_items_of_python_that_cannot_be() -> None:
    with pytest.raises(DataError, match="2 of 4.*KeyError.*0.5"):
        data.load("python:made_data:Odd?mode=L").check()
