"""What every measure of the catalogue must do, whoever wrote it; and what is seen in one that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import underfire as uf
from underfire.catalog import cards
from underfire.testing import check_measure
from underfire.testing.measure import PROMISES

CARDS = list(cards("measure"))
#: What some measures ask for that no audit has.
OTHERS = {
    "sizes": torch.tensor([1.5, 2.0, 1.0, 1.25, 1.75]),
    "best": torch.tensor([0.5, 1.0, 0.0, 0.25, 0.75]),
    "boxes": torch.tensor([[0, 0, 2, 2], [1, 1, 4, 4], [0, 2, 3, 4], [2, 0, 4, 3], [0, 0, 4, 4]]),
    "other": uf.testing.measure.Network(1),
    "answers": torch.tensor([0, 1, 2, 3, 1]),
    "predictions": torch.tensor([0, 1, 2, 0, 1]),
    "labels": torch.tensor([0, 1, 2, 3, 0]),
    "fooled": torch.tensor([[True, False, True, False, False], [True, True, True, True, False]]),
    "iou": torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.25, 1.0, 0.0, 0.0]]),
    "eps": torch.tensor([0.25, 0.5]),
    "seconds": torch.tensor([1.5, 2.0, 1.0, 1.25, 1.75]),
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_measure_keeps_every_promise(card, promise):
    check_measure(card, arguments=OTHERS, promises=[promise])


def test_the_catalogue_has_measures():
    assert {"linf", "success", "confidence", "map_l1", "map_l2", "map_iou", "pointing_game"} <= {c.name for c in CARDS}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_measure_is_reachable_by_the_name_on_its_card(card):
    assert getattr(uf.measures, card.name) is card.function
    assert card.function.__name__ == card.name
    assert card.name in uf.measures.__all__


def documented(m: Tensor, wobble: Tensor) -> Tensor:
    """No sentence"""
    return m.flatten(1).mean(1)


def one_value_each(m: Tensor) -> Tensor:
    """Return a map instead of a number."""
    return m


def batch_equals_singles(m: Tensor) -> Tensor:
    """Return the mean, centred over the batch."""
    mean = m.flatten(1).mean(1)
    return mean - mean.mean()


def any_precision(m: Tensor) -> Tensor:
    """Return the mean in the float type of the map."""
    return m.flatten(1).mean(1)


def inside_limits(m: Tensor) -> Tensor:
    """Return more than the card allows."""
    return m.flatten(1).double().mean(1) + 1


def arguments_left_as_found(m: Tensor) -> Tensor:
    """Return the mean, and write into the map."""
    return m.add_(1).flatten(1).mean(1)


@pytest.mark.parametrize(
    "measure",
    [documented, one_value_each, batch_equals_singles, any_precision, inside_limits, arguments_left_as_found],
    ids=lambda measure: measure.__name__,
)
def test_a_broken_promise_is_named(measure, monkeypatch):
    monkeypatch.setattr("underfire.catalog.registry._CARDS", {})
    card = uf.card("measure", paper="Example, A Paper, 2026", higher_is_better=True, table="maps", limits=(0.0, 1.0))
    measure = card(measure)
    with pytest.raises(AssertionError, match=f"breaks the promise '{measure.__name__}'"):
        check_measure(measure, promises=[measure.__name__])


def test_a_measure_without_a_card_is_refused():
    with pytest.raises(AssertionError, match="no card"):
        check_measure(one_value_each)
