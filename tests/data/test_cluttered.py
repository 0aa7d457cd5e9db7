"""The embedded data: real digits, and the same among pieces of others."""

from __future__ import annotations

import pytest
import torch

from underfire import data
from underfire.data import digits
from underfire.data.cluttered import PIECES, PLACEMENTS, ClutteredDigits


def test_the_splits_share_no_scan() -> None:
    train, test = digits.split_indices("train").tolist(), digits.split_indices("test").tolist()
    assert len(train) == 1198 and len(test) == 599
    assert sorted(train + test) == list(range(1797))


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    batch = data.load("digits:train")[:50]
    scans = [int(name.removeprefix("digit-")) for name in batch.ids]
    assert batch.x.shape == (50, 1, 8, 8)
    assert torch.equal(batch.x[:, 0].double() * 16, torch.tensor(bunch.images[scans]))
    assert batch.y.tolist() == bunch.target[scans].tolist()


@pytest.mark.slow
def test_the_default_is_the_test_split() -> None:
    dataset = data.load("cluttered-digits:")
    assert len(dataset) == 2000 and dataset.labels == tuple("0123456789")
    assert dataset[:3].ids == data.load("cluttered-digits:test")[:3].ids
    assert len(data.load("cluttered-digits:train")) == 1198 * PLACEMENTS
    assert len(set(data.load("cluttered-digits:")[:].ids)) == 2000


def test_an_image_does_not_depend_on_its_company() -> None:
    source = ClutteredDigits("test")
    together = source.read([5, 6, 700, 5])
    for place, index in enumerate((5, 6, 700, 5)):
        alone = source.read([index])
        assert torch.equal(alone.x[0], together.x[place])
        assert alone.mask is not None and together.mask is not None
        assert torch.equal(alone.mask[0], together.mask[place])
    assert len(source.read([]).x) == 0


def test_seed_and_placement_make_other_images_of_the_same_digit() -> None:
    first, other = ClutteredDigits("train").read([0, 1198]), ClutteredDigits("train", seed=1).read([0])
    assert first.y[0] == first.y[1] == other.y[0]
    assert not torch.equal(first.x[0], first.x[1])
    assert not torch.equal(first.x[0], other.x[0])


def test_pixels_are_in_the_box_and_the_mask_is_on_the_ink() -> None:
    batch = data.load("cluttered-digits:", n=300)[:]
    assert batch.mask is not None and batch.mask.dtype == torch.bool and batch.mask.shape == batch.x.shape
    assert float(batch.x.min()) >= 0 and float(batch.x.max()) <= 1
    share = batch.mask.float().mean((1, 2, 3))
    assert float(share.min()) > 0.02 and float(share.max()) < 0.25
    # ink is at least 0.3 x 0.65; the gap around it holds paper (at most 0.15) and faint ink only
    assert float(batch.x[batch.mask].min()) > 0.19
    box = data.boxes(batch.mask)
    assert bool((box[:, 2:] - box[:, :2] >= 8).all()) and bool((box[:, 2:] - box[:, :2] <= 46).all())


def test_the_mask_is_exactly_where_the_digit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ClutteredDigits("test")
    whole = source.read(list(range(200)))
    monkeypatch.setattr(ClutteredDigits, "_clutter", lambda self, draws: torch.zeros(len(draws) // PIECES, 1, 64, 64))
    bare = source.read(list(range(200)))
    assert whole.mask is not None and bare.mask is not None
    assert torch.equal(whole.mask, bare.mask)
    assert torch.equal(whole.x[whole.mask], bare.x[bare.mask])  # no piece covers the digit
    low, high = bare.x.flatten(1).amin(1), bare.x.flatten(1).amax(1)
    cut = (low + 0.3 * (high - low)).reshape(-1, 1, 1, 1)  # full ink is reached in every digit, or nearly
    assert float(((bare.x > cut) == bare.mask).float().mean()) > 0.995
    clutter = ((whole.x - bare.x) > 0.05).float().mean((1, 2, 3))
    assert float(clutter.min()) > 0.02


def test_digits_are_everywhere_on_the_canvas() -> None:
    batch = data.load("cluttered-digits:", n=500)[:]
    assert batch.mask is not None
    box = data.boxes(batch.mask)
    assert bool((box[:, :2].amin(0) <= 6).all()) and bool((box[:, 2:].amax(0) >= 58).all())  # scans have blank margins
    middle = (box[:, :2] + box[:, 2:]).float().mean(0) / 2
    assert bool(((middle - 32).abs() < 2).all())  # 500 draws with a deviation of about 9 pixels: 5 standard errors


@pytest.mark.slow
def test_classes_are_balanced() -> None:
    counts = data.load("cluttered-digits:")[:].y.bincount(minlength=10)
    assert int(counts.min()) > 150 and int(counts.max()) < 250
