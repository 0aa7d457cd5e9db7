"""Objectives that are functions of the caller: they attack as the part of the same name does."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss, functional

import underfire as uf
from underfire.ascent.losses import as_objective
from underfire.ascent.objectives import cross_entropy, margin
from underfire.ascent.step import Step
from underfire.errors import InputError
from underfire.model import Classifier

ATTACKS = [
    partial(uf.attacks.pgd, steps=3),
    partial(uf.attacks.apgd, steps=3),
    partial(uf.attacks.square, queries=5),
    partial(uf.attacks.carlini_wagner, norm="l2", steps=3, binary_search_steps=1),
]
LOSSES = [CrossEntropyLoss(reduction="none"), partial(functional.cross_entropy, reduction="none")]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.func.__name__)
@pytest.mark.parametrize("goal", [None, torch.tensor([1, 2, 3, 0, 1, 2])], ids=["untargeted", "goal"])
def test_a_loss_and_a_function_of_a_step_are_objectives(
    smooth_model: Classifier, images: Tensor, attack: partial[Tensor], goal: Tensor | None
) -> None:
    x, y = images.double(), torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = attack(smooth_model, x, y, goal=goal, objective=cross_entropy())
    for given in (*LOSSES, lambda step: cross_entropy()(step)):
        assert torch.equal(attack(smooth_model, x, y, goal=goal, objective=given), wanted)


def test_an_objective_stays_as_it_is() -> None:
    given = margin()
    assert as_objective(given) is given


@pytest.mark.parametrize(
    ("objective", "fact"),
    [("margin", "margin"), (CrossEntropyLoss(), "reduction='none'"), (lambda step: 1.0, r"\[6\].*float")],
    ids=["text", "mean", "number"],
)
def test_what_is_no_objective_is_refused(relu_model: Classifier, images: Tensor, objective: object, fact: str) -> None:
    with pytest.raises(InputError, match=fact):
        uf.attacks.pgd(relu_model, images, torch.zeros(6, dtype=torch.int64), steps=1, objective=objective)


def test_an_option_of_the_catalogue_may_be_a_function() -> None:
    assert uf.find("attack", "pgd").check({"objective": LOSSES[0]})["objective"].terms
    with pytest.raises(InputError, match="objective"):
        uf.find("attack", "pgd").check({"objective": 3})


def test_passes_are_shared_where_an_objective_may_call_the_model() -> None:
    seen: list[str] = []

    class Network(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = functional.hardsigmoid(x.flatten(1))  # shared passes compute it in such a way that it is twice smooth
            seen.append(type(z.grad_fn).__name__)
            return z[:, :3]

    def term(step: Step) -> Tensor:
        return margin()(step)

    x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
    for given in (margin(), 2 * margin() + cross_entropy(), CrossEntropyLoss(reduction="none")):
        assert as_objective(given).logits_only
        uf.attacks.pgd(Network(), x, y, objective=given, steps=1, keep="last")
    assert set(seen) == {"HardsigmoidBackward0"}
    seen.clear()
    for given in (term, margin() + as_objective(term)):
        assert not as_objective(given).logits_only
        uf.attacks.pgd(Network(), x, y, objective=given, steps=1, keep="last")
    assert set(seen) == {"_HardSigmoidBackward"}
