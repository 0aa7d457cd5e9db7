"""The weight of the map loss over the steps."""

from __future__ import annotations

from typing import Any

import pytest

from underfire.attacks.adv2.weights import weight_schedule
from underfire.audit.methods import values_of
from underfire.audit.spec import parse_attack
from underfire.errors import InputError

#: GRAD in the authors' code, times the 56 x 56 pixels of its map.
GRAD = ((301, 3.1), (201, 13.0), (101, 31.0), (101, 157.0))


def test_the_three_forms() -> None:
    shares = [0.0, 0.25, 0.5, 1.0]
    assert [weight_schedule(7)(share) for share in shares] == [7, 7, 7, 7]
    assert [weight_schedule((4.0, 8.0))(share) for share in shares] == [4, 5, 6, 8]
    phases = weight_schedule(GRAD)
    steps = [phases(step / 704) for step in range(704)]
    assert [steps.count(weight) for _, weight in GRAD] == [301, 201, 101, 101]
    assert steps == sorted(steps) and phases(1.0) == 157


def test_a_spec_may_hold_each_form() -> None:
    for written in (50, [5, 10], [list(phase) for phase in GRAD]):
        entry = parse_attack({"name": "adv2", "interpreter": "gradient", "weight": written})
        assert entry.options["weight"] == written
        assert weight_schedule(values_of(entry)["weight"])(1.0) == weight_schedule(written)(1.0)


@pytest.mark.parametrize("wrong", [(), (1.0,), -1, (1, -2), (1, 2, 3), ((0, 1), (0, 2)), "much", ((1, 2, 3),)])
def test_other_forms_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="weight must be"):
        weight_schedule(wrong)
