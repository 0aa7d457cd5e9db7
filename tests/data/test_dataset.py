"""Selections of a data set: lazy, deterministic, and together the whole."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from underfire import data
from underfire.data.dataset import Dataset, stack
from underfire.errors import DataError
from underfire.records import Batch


class Numbers:
    """Image `i` is the number `i`; remembers what was read."""

    labels: tuple[str, ...] | None = ("even", "odd")

    def __init__(self, length: int = 20) -> None:
        self.length = length
        self.was_read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def read(self, index: list[int]) -> Batch:
        self.was_read += index
        values = torch.tensor(index, dtype=torch.int64)
        return Batch(values.float().reshape(-1, 1, 1, 1), values % 2, tuple(str(i) for i in index))


def numbers(batch: Batch) -> list[int]:
    return [int(v) for v in batch.x.flatten()]


def test_nothing_is_read_before_it_is_asked_for() -> None:
    source = Numbers()
    dataset = Dataset("numbers:", source).subset(12, seed=3).shard(1, 2)
    batches = dataset.batches(4)
    assert source.was_read == []
    next(batches)
    assert len(source.was_read) == 4


def test_every_way_of_indexing_gives_the_same_images() -> None:
    dataset = Dataset("numbers:", Numbers())
    assert (
        numbers(dataset[2:5]) == numbers(dataset[[2, 3, 4]]) == numbers(dataset[torch.tensor([2, 3, 4])]) == [2, 3, 4]
    )
    assert numbers(dataset[-1]) == [19]
    assert numbers(dataset[[]]) == []
    assert dataset[3:5].ids == ("3", "4")
    with pytest.raises(IndexError):
        dataset[20]


def test_batches_are_all_images_in_order() -> None:
    parts = [numbers(batch) for batch in Dataset("numbers:", Numbers()).batches(8)]
    assert [len(part) for part in parts] == [8, 8, 4]
    assert list(chain(*parts)) == list(range(20))


def test_a_subset_is_decided_by_its_seed_and_grows_at_its_end() -> None:
    dataset = Dataset("numbers:", Numbers())
    small, large = numbers(dataset.subset(5, seed=7)[:]), numbers(dataset.subset(12, seed=7)[:])
    assert small == large[:5]
    assert len(set(large)) == 12
    assert small != numbers(dataset.subset(5, seed=8)[:])


def test_the_rest_of_a_subset_is_what_it_did_not_draw() -> None:
    dataset = Dataset("numbers:", Numbers())
    drawn, left = numbers(dataset.subset(5, seed=7)[:]), numbers(dataset.rest(5, seed=7)[:])
    assert len(left) == 15
    assert sorted(drawn + left) == list(range(20))
    with pytest.raises(DataError, match="left"):
        dataset.rest(20)


def test_a_subset_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Dataset("numbers:", Numbers()).subset(5, seed=7)
    assert torch.equal(before, torch.get_rng_state())


def test_the_shards_of_a_subset_are_the_subset() -> None:
    subset = Dataset("numbers:", Numbers()).subset(11, seed=1)
    parts = [numbers(subset.shard(i, 3)[:]) for i in range(3)]
    assert sorted(chain(*parts)) == sorted(numbers(subset[:]))
    assert sorted(len(part) for part in parts) == [3, 4, 4]


def test_the_fingerprint_tells_every_selection_apart() -> None:
    dataset = Dataset("numbers:", Numbers())
    others = [
        dataset,
        Dataset("other:", Numbers()),
        dataset.subset(5),
        dataset.subset(5, 1),
        dataset.subset(6),
        dataset.shard(0, 2),
    ]
    assert len({other.fingerprint() for other in others}) == len(others)
    assert dataset.subset(5, 1).fingerprint() == Dataset("numbers:", Numbers()).subset(5, 1).fingerprint()


def test_selections_that_cannot_be() -> None:
    dataset = Dataset("numbers:", Numbers())
    for n in (0, 21):
        with pytest.raises(DataError, match=f"n={n} images, there are 20"):
            dataset.subset(n)
    for index in (-1, 3):
        with pytest.raises(DataError, match="from 0 to 2"):
            dataset.shard(index, 3)
    with pytest.raises(DataError, match="batch_size .* got 0"):
        dataset.batches(0)


def test_a_label_outside_the_classes_is_named() -> None:
    source = Numbers()
    source.labels = ("even",)
    with pytest.raises(DataError, match="label 1 .*'3'"):
        Dataset("numbers:", source)[3]


def test_images_of_different_sizes_do_not_stack() -> None:
    with pytest.raises(DataError, match=r"'a' \(8x4\) .*'b' \(6x5\).*\?size"):
        stack([torch.zeros(3, 4, 8), torch.zeros(3, 5, 6)], ["a", "b"])


def test_boxes_are_tight() -> None:
    mask = torch.zeros(2, 1, 6, 9, dtype=torch.bool)
    mask[0, 0, 2, 3:7] = True
    mask[0, 0, 4, 5] = True
    assert data.boxes(mask).tolist() == [[3, 2, 7, 5], [0, 0, 0, 0]]


def test_uris_that_cannot_be() -> None:
    with pytest.raises(DataError, match="'digit:'.* 'digits:'"):
        data.load("digit:")
    with pytest.raises(DataError, match="unknown data 'somewhere'"):
        data.load("somewhere")
    with pytest.raises(DataError, match="folder: .*'sise'.* 'size'"):
        data.load("folder:x?sise=3")
    with pytest.raises(DataError, match="unknown split 'validation'"):
        data.load("digits:validation")
    with pytest.raises(DataError, match="n=600 images, there are 599"):
        data.load("digits:", n=600)
