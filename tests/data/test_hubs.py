"""Data of the hubs, by stand-ins: what is asked of each package, and what is made of its answer."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from PIL import Image

from underfire import data
from underfire.errors import DataError, MissingExtra


@pytest.mark.parametrize(("uri", "package"), [("torchvision:CIFAR10?root=x", "torchvision"), ("hf:x", "datasets")])
def test_a_missing_extra_says_how_to_get_it(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=f"{package} .* pip install {package}"):
        data.load(uri)


class ByFlag:
    """Like CIFAR10: the split is a boolean."""

    classes = ("cat", "dog")

    def __init__(self, root: str, train: bool, download: bool) -> None:
        if root == "nowhere":
            raise RuntimeError("Dataset not found.\nYou can use download=True")
        assert not download
        self.length = 5 if train else 3

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.new("L", (4, 4), 51 * i), i % 2


class ByWord:
    """Like SVHN: the split is a word; images are tensors."""

    def __init__(self, root: str, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> tuple[object, int]:
        return (torch.full((3, 4, 4), 255, dtype=torch.uint8) if i == 0 else "a word"), 7


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchvision")
    vars(module)["datasets"] = SimpleNamespace(ByFlag=ByFlag, ByWord=ByWord)
    monkeypatch.setitem(sys.modules, "torchvision", module)


@pytest.mark.usefixtures("torchvision")
def test_torchvision() -> None:
    dataset = data.load("torchvision:ByFlag?root=x")
    assert len(dataset) == 3 and dataset.labels == ("cat", "dog")
    batch = dataset[[2, 1]]
    assert batch.x.shape == (2, 3, 4, 4) and batch.y.tolist() == [0, 1]
    assert torch.allclose(batch.x[:, 0, 0, 0], torch.tensor([0.4, 0.2]))
    assert batch.ids == ("ByFlag-test-000002", "ByFlag-test-000001")
    assert len(data.load("torchvision:ByFlag?root=x&split=train")) == 5
    assert data.load("torchvision:ByFlag?root=x", channels=1)[[2, 1]].x.shape == (2, 1, 4, 4)
    by_word = data.load("torchvision:ByWord?root=x")
    assert by_word.labels is None and torch.equal(by_word[0].x, torch.ones(1, 3, 4, 4))
    with pytest.raises(DataError, match="Pillow image.* got str"):
        by_word[1]


@pytest.mark.usefixtures("torchvision")
def test_torchvision_that_cannot_be() -> None:
    with pytest.raises(DataError, match="did you mean 'ByFlag'"):
        data.load("torchvision:ByFlagg?root=x")
    with pytest.raises(DataError, match=r"torchvision:ByFlag\?root=FOLDER"):
        data.load("torchvision:ByFlag")
    with pytest.raises(DataError, match="'nowhere': Dataset not found.$"):
        data.load("torchvision:ByFlag?root=nowhere")


class Table(list[dict[str, object]]):
    features: ClassVar[dict[str, object]] = {"img": None, "label": SimpleNamespace(names=["cat", "dog"])}


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def load_dataset(name: str, split: str, **more: str) -> Table:
        asked.append(more)
        if split != "test":
            raise ValueError(f"Unknown split {split!r}\nand more")
        return Table({"img": Image.new("RGB", (2, 2), (51 * i, 0, 0)), "label": i} for i in (0, 1))

    module = ModuleType("datasets")
    vars(module)["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    dataset = data.load("hf:someone/pets")
    assert len(dataset) == 2 and dataset.labels == ("cat", "dog")
    assert torch.allclose(dataset[1].x[0, :, 0, 0], torch.tensor([0.2, 0.0, 0.0])) and dataset[1].y.tolist() == [1]
    with pytest.raises(DataError, match=r"pets\?split=dev .* 'dev'$"):
        data.load("hf:someone/pets?split=dev")
    data.load("hf:someone/pets?revision=9f2c&mode=L")
    assert asked[0] == {} and asked[-1] == {"revision": "9f2c"}
    monkeypatch.setattr(Table, "features", {"text": None})
    with pytest.raises(DataError, match="no column image.* 'text'"):
        data.load("hf:someone/pets")
