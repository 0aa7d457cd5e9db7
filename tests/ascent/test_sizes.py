"""The check of eps: a size beyond the whole input is refused in one line, in the units of each threat."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import underfire as uf
from underfire.ascent.flows import Flow
from underfire.ascent.parametric import Affine
from underfire.ascent.threats import BALLS, ball
from underfire.domains import Domain
from underfire.errors import InputError

X = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
WHOLE = {"linf": 1.0, "l2": math.sqrt(48), "l1": 48.0, "l0": 48.0}


@pytest.mark.parametrize("norm", BALLS)
def test_the_whole_image_is_the_largest_size(norm: str) -> None:
    assert ball(norm, 1.0).largest(X) == pytest.approx(WHOLE[norm])
    ball(norm, WHOLE[norm]).check(X)
    ball(norm, torch.full((3,), WHOLE[norm])).check(X)  # float32 rounds up
    for wrong in (WHOLE[norm] * 1.01, torch.tensor([0.1, 0.1, WHOLE[norm] * 1.01])):
        with pytest.raises(InputError, match=r"whole image"):
            ball(norm, wrong).check(X)


@pytest.mark.parametrize(("norm", "eps", "hint"), [("linf", 8, "8/255"), ("l2", 128, "128/255"), ("l0", 99, "")])
def test_grey_levels_are_recognised(norm: str, eps: float, hint: str) -> None:
    with pytest.raises(InputError) as error:
        ball(norm, eps).check(X)
    assert (hint in str(error.value)) if hint else ("/255" not in str(error.value))


def test_a_table_has_its_own_scale() -> None:
    domain = Domain("table", 2, low=(0.0, 0.0), high=(3.0, 4.0))
    x = torch.tensor([[1.0, 2.0]])
    sizes = {"linf": 4.0, "l2": 5.0, "l1": 7.0, "l0": 2.0}
    for norm, largest in sizes.items():
        threat = ball(norm, largest).in_domain(domain)
        assert threat.largest(x) == pytest.approx(largest)
        threat.check(x)
        with pytest.raises(InputError, match="whole input"):
            ball(norm, 1.1 * largest).in_domain(domain).check(x)
    ball("linf", 1e9).in_domain(Domain("table", 2, low=-math.inf, high=math.inf)).check(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgd", "bim", "rand_fgsm", "fgsm", "apgd", "nes", "uap"])
def test_every_attack_on_a_table_uses_the_box_of_the_table(name: str) -> None:
    model = uf.Classifier(torch.nn.Linear(2, 3), domain=Domain("table", 2, low=0.0, high=100.0))
    x, y = torch.full((2, 2), 50.0), torch.tensor([0, 1])
    budget = {"nes": {"queries": 50}, "uap": {"steps": 1, "held_out": False}}.get(name, {})
    assert getattr(uf.attacks, name)(model, x, y, eps=8.0, **budget).shape == x.shape
    with pytest.raises(InputError, match="100"):
        getattr(uf.attacks, name)(model, x, y, eps=101.0, **budget)


def test_other_threats_have_their_own_limits() -> None:
    for threat in (Flow(5.0), Affine(1.5)):
        with pytest.raises(InputError):
            threat.check(X)
    Flow(4.0).check(X)


@pytest.mark.parametrize("eps", [None, True, [0.1], "much"])
def test_a_size_that_is_no_number_is_one_line(eps: Any) -> None:
    with pytest.raises(InputError, match="eps"):
        ball("linf", eps)


SIZED = [card for card in uf.cards("attack") if "eps" in card.options]


@pytest.mark.parametrize("card", SIZED, ids=lambda card: card.name)
def test_every_attack_refuses_what_is_no_size_of_an_image(card: uf.catalog.Card[Any]) -> None:
    model = uf.Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)))
    aim = {"interpreter": uf.interpreters.gradient} if "interpreter" in card.options else {}
    optional = card.options["eps"].default is None
    for wrong in (True, "much", 300.0, *([] if optional else [None]), *([8] if card.facts.norms[0] == "linf" else [])):
        with pytest.raises(InputError) as error:
            card(model, X, torch.tensor([0, 1, 2]), eps=wrong, **aim)
        assert "\n" not in str(error.value)
