"""Checks that everything shares: what passes, what is refused, and shapes that broadcast."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from underfire.errors import DataError, InputError, ModelError, Unsupported
from underfire.validate import (
    at_least_one,
    check_choice,
    check_classes,
    check_goal,
    check_labels,
    default_generator,
    per_sample,
    require_finite,
)


def test_at_least_one_names_the_number_that_is_too_small() -> None:
    at_least_one(steps=1, restarts=7)
    with pytest.raises(InputError, match="restarts.*0"):
        at_least_one(steps=1, restarts=0)


def test_a_choice_that_is_unknown_is_named_with_the_choices() -> None:
    check_choice(("adam", "newton"), solver="adam")
    with pytest.raises(Unsupported, match="solver 'sgd'.*adam, newton"):
        check_choice(("adam", "newton"), solver="sgd")


def test_classes_must_be_among_those_of_the_logits() -> None:
    logits = torch.zeros(2, 3)
    check_classes(logits, torch.tensor([0, 2]), torch.tensor([2, 1]))
    with pytest.raises(DataError, match="label 3"):
        check_classes(logits, torch.tensor([0, 3]))
    with pytest.raises(DataError, match="label 4"):
        check_classes(logits, torch.tensor([0, 1]), torch.tensor([4, 0]))


def test_labels_must_be_one_class_for_each_sample() -> None:
    x = torch.zeros(2, 5)
    check_labels(x, torch.tensor([0, 1]), torch.tensor([1, 0]))
    with pytest.raises(DataError, match="labels"):
        check_labels(x, torch.tensor([0]))
    with pytest.raises(DataError, match="goal"):
        check_labels(x, torch.tensor([0, 1]), torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="1 of 2"):
        check_goal(torch.tensor([0, 1]), torch.tensor([1, 1]))


def test_the_default_generator_always_begins_alike_and_leaves_the_global_one_alone() -> None:
    state = torch.get_rng_state()
    first, second = (torch.rand(4, generator=default_generator(None)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    own = Generator().manual_seed(3)
    assert default_generator(own) is own


def test_values_that_are_not_finite_are_counted() -> None:
    values = torch.ones(3, 2, 2)
    assert require_finite(values) is values
    values[1, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN for 1 of 3"):
        require_finite(values, "the map")


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 6), (3, 5, 7, 7)])
def test_one_number_per_sample_broadcasts_against_any_batch(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    product = x * per_sample(torch.tensor([1.0, 2.0, 3.0]), x)
    assert product.flatten(1)[:, -1].tolist() == [1, 2, 3]
    assert product.shape == shape
    assert per_sample(0.5, x) == 0.5
    assert per_sample(torch.tensor([True, False, True]), x).dtype == torch.bool
