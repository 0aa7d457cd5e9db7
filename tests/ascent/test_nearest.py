"""The nearest success wins, inside eps; what has none stays the clean image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underfire import Classifier
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.domains import IMAGES
from underfire.errors import DataError, InputError, Unsupported


def test_the_nearest_success_inside_eps_is_kept(images: Tensor) -> None:
    nearest = Nearest(images, "linf", torch.tensor([0.2, 0.2, 0.2, 0.2, 0.05, 0.2]), domain=IMAGES)
    yes = torch.ones(6, dtype=torch.bool)
    assert nearest.update((images + 0.1).clamp(0, 1), yes).tolist() == [True, True, True, True, False, True]
    nearest.update((images + 0.15).clamp(0, 1), yes)  # farther
    index = torch.tensor([3, 0, 2])
    better = nearest.update((images[index] + 0.01).clamp(0, 1), torch.tensor([True, True, False]), index)
    assert better.tolist() == [True, True, False]
    assert nearest.size.tolist() == pytest.approx([0.01, 0.1, 0.1, 0.01, float("inf"), 0.1], abs=1e-6)
    assert nearest.found.tolist() == [True, True, True, True, False, True]
    assert torch.equal(nearest.x_adv[4], images[4])


def test_without_eps_any_size_counts(images: Tensor) -> None:
    nearest = Nearest(images, "l0", domain=IMAGES)
    nearest.update(1 - images, torch.tensor([True] * 5 + [False]))
    assert nearest.size.tolist() == [432.0] * 5 + [float("inf")]


def test_what_is_wrong_already_is_its_own_success(relu_model: Classifier, images: Tensor) -> None:
    y = relu_model(images).argmax(1)
    y[2] = (y[2] + 1) % 4
    nearest = Nearest(images, "l2", domain=IMAGES)
    logits, at = evaluate_clean(relu_model, images, y, None, nearest)
    assert torch.equal(logits, relu_model(images))
    assert nearest.size.tolist() == [float("inf"), float("inf"), 0.0, float("inf"), float("inf"), float("inf")]
    assert torch.equal(at.index, torch.arange(6))


def test_bad_input_is_found_before_anything_is_spent(relu_model: Classifier, images: Tensor) -> None:
    with pytest.raises(Unsupported, match="'l0' .* l2, linf"):
        Nearest(images, "l0", among=("l2", "linf"), domain=IMAGES)
    with pytest.raises(InputError, match="one per sample"):
        Nearest(images, "l2", torch.ones(2), domain=IMAGES)
    with pytest.raises(DataError, match="label 9 is outside"):
        evaluate_clean(relu_model, images, torch.full((6,), 9), None, Nearest(images, "l2", domain=IMAGES))
