"""What callers write for labels, goals and sizes: lists, arrays, one goal for all, a size as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import underfire as uf
from underfire.errors import InputError
from underfire.model import Classifier

LABELS = [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        tuple(LABELS),
        np.array(LABELS),
        np.array(LABELS, dtype=np.int32),
        torch.tensor(LABELS, dtype=torch.uint8),
    ],
    ids=["list", "tuple", "array", "int32", "uint8"],
)
def test_labels_of_every_kind(relu_model: Classifier, images: Tensor, y: Any) -> None:
    wanted = uf.attacks.pgd(relu_model, images, torch.tensor(LABELS), eps=8 / 255, steps=2)
    assert torch.equal(uf.attacks.pgd(relu_model, images, y, eps="8/255", steps=2), wanted)
    assert torch.equal(
        uf.attacks.fgsm(relu_model, images, y=y), uf.attacks.fgsm(relu_model, images, torch.tensor(LABELS))
    )
    maps = uf.interpreters.gradient(relu_model, images, torch.tensor(LABELS))
    assert torch.equal(uf.interpreters.gradient(relu_model, images, y), maps)


@pytest.mark.parametrize("goal", [3, np.int64(3), torch.tensor(3), [3] * 6, np.full(6, 3)], ids=repr)
def test_goals_of_every_kind(relu_model: Classifier, images: Tensor, goal: Any) -> None:
    y = [0, 1, 2, 0, 1, 2]
    wanted = uf.attacks.pgd(relu_model, images, torch.tensor(y), goal=torch.full((6,), 3), steps=2)
    assert torch.equal(uf.attacks.pgd(relu_model, images, y, goal=goal, steps=2), wanted)
    assert torch.equal(uf.find("attack", "pgd")(relu_model, images, y, goal=goal, steps=2), wanted)


@pytest.mark.parametrize(
    ("y", "options", "fact"),
    [
        (["a"] * 6, {}, "list"),
        ([0.5] * 6, {}, "int64"),
        ([[0, 1]] * 6, {}, "int64"),
        (LABELS, {"goal": "cat"}, "goal"),
        (LABELS, {"goal": 3.5}, "goal"),
        (LABELS, {"eps": "8/"}, "eps"),
        ([0, 1], {}, "int64"),
    ],
)
def test_what_is_none_of_these_gets_one_line(
    relu_model: Classifier, images: Tensor, y: Any, options: Any, fact: str
) -> None:
    with pytest.raises(InputError, match=fact) as caught:
        uf.attacks.pgd(relu_model, images, y, steps=1, **options)
    assert "\n" not in str(caught.value)
