"""Labels in the model's order: by name where there are names, by order otherwise, and said."""

from __future__ import annotations

import pytest
import torch

from underfire.data.dataset import Dataset
from underfire.errors import DataError
from underfire.records import Batch


class Made:
    """Image `i` has the label `i`, modulo the number of classes."""

    def __init__(self, labels: tuple[str, ...] | None, classes: int = 3, labelled: bool = True) -> None:
        self.labels, self._classes, self.labelled = labels, classes, labelled

    def __len__(self) -> int:
        return 6

    def read(self, index: list[int]) -> Batch:
        y = torch.tensor([i % self._classes if self.labelled else -1 for i in index])
        return Batch(torch.zeros(len(index), 1, 2, 2), y, tuple(f"{i}\udcff" for i in index))


def made(*labels: str) -> Dataset:
    return Dataset("made:", Made(labels or None))


def test_classes_are_put_in_the_models_order_by_name() -> None:
    fitted = made("ant", "bee", "cow").ordered_as(["cow", "elk", "ant", "bee"])
    assert fitted[:].y.tolist() == [2, 3, 0, 2, 3, 0] and fitted.labels == ("cow", "elk", "ant", "bee")
    assert len(fitted.notes) == 1
    assert fitted.subset(4, seed=1).shard(0, 2).labels == fitted.labels
    same = made("ant", "bee", "cow").ordered_as(["ant", "bee", "cow"])
    assert same.notes == () and same[:].y.tolist() == [0, 1, 2, 0, 1, 2]
    assert fitted.fingerprint() != same.fingerprint() == made().fingerprint()


def test_a_class_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 3.*'elk'"):
        made("ant", "bee", "cow").ordered_as(["bee", "ant", "elk"])


NAMES = ("ant", "bee", "cow")


@pytest.mark.parametrize(("data", "model"), [((), NAMES), (NAMES, None), (NAMES, ("LABEL_0",))])
def test_names_on_one_side_only_leave_the_order_and_are_said(
    data: tuple[str, ...], model: tuple[str, ...] | None
) -> None:
    fitted = made(*data).ordered_as(model)
    assert fitted[:].y.tolist() == [0, 1, 2, 0, 1, 2] and fitted.labels == ("ant", "bee", "cow")
    assert "'ant', 'bee', 'cow'" in fitted.notes[0]


def test_no_names_at_all() -> None:
    assert made().ordered_as(None).labels is None and made().ordered_as(None).notes == ()


def test_the_spec_names_the_classes() -> None:
    assert made().named(["ant", "bee", "cow"]).ordered_as(["cow", "bee", "ant"])[:3].y.tolist() == [2, 1, 0]
    assert made("ant", "bee", "cow").named(["cow", "bee", "ant"]).ordered_as(None)[:3].y.tolist() == [2, 1, 0]
    both = made("ant", "bee", "cow").named({"cow": "Kuh"}).ordered_as(["Kuh", "bee", "ant"])
    assert both[:3].y.tolist() == [2, 1, 0]
    twice = made("ant", "bee", "cow").named(["bee", "cow", "ant"]).ordered_as(["cow", "ant", "bee"])
    assert twice[:3].y.tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="'cow'"):
        made("ant", "bee", "cow").named(["ant", "bee"])
    with pytest.raises(DataError, match="'yak'.* 'ant'"):
        made("ant", "bee", "cow").named({"yak": "ant"})


def test_images_without_labels_need_an_answer() -> None:
    unlabelled = Dataset("made:", Made(None, labelled=False))
    assert not unlabelled.labelled
    with pytest.raises(DataError, match="no labels"):
        unlabelled[:]
    answered = unlabelled.ordered_as(["ant", "bee"]).answered_by(lambda x: torch.ones(len(x), dtype=torch.int64))
    assert answered[1:4].y.tolist() == [1, 1, 1] and answered.labelled and answered.labels == ("ant", "bee")
    assert "own answers" in answered.notes[0]
    other = made("ant", "bee", "cow").without_labels().ordered_as(["x", "y"])
    assert not other.labelled and other.labels == ("x", "y")


def test_names_of_images_and_classes_can_be_stored() -> None:
    assert made()[0].ids == ("0\\xff",)
    assert made("\ud800", "b", "c").labels == ("\\ud800", "b", "c")
