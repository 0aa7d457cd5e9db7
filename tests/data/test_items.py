"""Images and labels that are Python objects mean the same by every door: a URI, a data set, a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from underfire import data
from underfire.data.images import AS_IT_IS, Reading
from underfire.data.items import parts, read_item, read_label
from underfire.data.pairs import Pairs
from underfire.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
WHOLE = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
FORMS: dict[str, Any] = {
    "Pillow": Image.fromarray(PIXELS),
    "bytes, channels last": PIXELS,
    "bytes, channels first": PIXELS.transpose(2, 0, 1),
    "tensor of bytes": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor": WHOLE,
    "array": WHOLE.numpy(),
    "with a gradient": WHOLE.clone().requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_image_in_every_form(form: str) -> None:
    item = FORMS[form]
    assert torch.equal(read_item(item, "a"), WHOLE)
    assert torch.equal(Pairs([(item, 1)], None, "a", AS_IT_IS).read([0]).x[0], WHOLE)
    x, y = data.from_objects([(item, 1)])[:]
    assert torch.equal(x[0], WHOLE) and y.tolist() == [1]
    grey = read_item(item, "a", Reading(mode="L"))
    assert grey.shape == (1, 6, 5)
    assert form == "Pillow" or torch.allclose(grey, WHOLE.mean(0, keepdim=True))  # Pillow weighs the colours


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), np.array([2]), "cow"])
def test_one_label_in_every_form(label: Any) -> None:
    assert read_label(label, ("ant", "bee", "cow"), "a") == 2
    source = Pairs([{"image": WHOLE, "label": label}], ("ant", "bee", "cow"), "a")
    assert source.labelled and source.read([0]).y.tolist() == [2]


@pytest.mark.parametrize("label", [0.5, True, "elk", None, 2**70, [1, 2]])
def test_what_is_no_label(label: Any) -> None:
    with pytest.raises(DataError, match="class number"):
        read_label(label, ("ant", "bee", "cow"), "a")


@pytest.mark.parametrize("image", ["a", None, torch.zeros(5), np.zeros((2, 2, 2, 2)), torch.zeros(1, 2, 2) > 0, {}])
def test_what_is_no_image(image: Any) -> None:
    with pytest.raises(DataError, match="Pillow"):
        read_item(image, "a")


def test_names_of_classes_are_labels_of_a_data_set_in_memory() -> None:
    class Named(list[Any]):
        classes = ("ant", "bee")

    found = data.from_objects(Named([(WHOLE, "bee"), (WHOLE, 0)]))
    assert found.labels == ("ant", "bee") and found[:].y.tolist() == [1, 0]


def test_an_item_is_taken_apart() -> None:
    assert parts({"img": 1, "fine_label": 2, "more": 3}) == (1, 2) and parts((1, 2, 3)) == (1, 2)
    assert parts(7) == (7, None) and parts({"x": 1}) == (1, None)
    for wrong in ({"picture": 1}, (1,)):
        with pytest.raises(DataError):
            parts(wrong)
