"""Domains: which batches they take, how they clip, and which columns may change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import rand
from underfire.domains import IMAGES, Domain, check_inputs, domain_of
from underfire.errors import DataError, InputError, Unsupported
from underfire.model import Classifier

TABLE = Domain("table", 2, low=(0.0, -5.0, 18.0), high=(1.0, 5.0, 99.0), kinds=("numeric", "categorical", "immutable"))


def test_images_are_four_dimensional_and_in_the_unit_box() -> None:
    IMAGES.check(rand(2, 3, 4, 4))
    with pytest.raises(DataError, match="image"):
        IMAGES.check(rand(2, 3))
    with pytest.raises(DataError, match="1.5"):
        IMAGES.check(torch.full((1, 1, 2, 2), 1.5))
    with pytest.raises(DataError, match="float16"):
        IMAGES.check(rand(1, 1, 2, 2).half())


def test_a_table_has_a_box_for_each_column() -> None:
    TABLE.check(torch.tensor([[0.5, -4.0, 40.0]]))
    with pytest.raises(DataError, match="values"):
        TABLE.check(torch.tensor([[0.5, 4.0, 17.0]]))
    with pytest.raises(DataError, match="3 columns"):
        TABLE.check(torch.zeros(1, 2))
    clipped = TABLE.clip(torch.tensor([[2.0, -9.0, 5.0]]))
    assert clipped.tolist() == [[1, -5, 18]]


def test_only_numeric_columns_may_change() -> None:
    assert TABLE.mutable(torch.zeros(1, 3)).tolist() == [1, 0, 0]
    assert IMAGES.mutable(torch.zeros(1, 1, 2, 2)) is None


def test_a_value_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(DataError):
        IMAGES.check(torch.full((1, 1, 1, 1), float("nan")))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"low": (0.0, 1.0), "high": (1.0, 1.0)}, "below"),
        ({"low": (0.0,), "high": (1.0, 2.0)}, "columns"),
        ({"kinds": ("number",)}, "number"),
        ({"ndim": 1}, "ndim"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Domain(**{"name": "table", "ndim": 2, **options})


def test_a_model_says_what_it_takes() -> None:
    net = nn.Linear(3, 2)
    assert domain_of(net) is IMAGES
    model = Classifier(net, domain=TABLE, mean=[0.0, 1.0, 2.0])
    assert domain_of(model) is TABLE
    x = torch.tensor([[0.5, 0.0, 40.0]])
    assert torch.allclose(model(x), net(x - torch.tensor([0.0, 1.0, 2.0])))
    check_inputs(model, x, torch.tensor([0]))
    with pytest.raises(Unsupported, match="table"):
        TABLE.require_images("st_adv")
