"""Arguments of ADV² that cannot work are refused in one line that says what would work."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from tests.attacks.adv2.conftest import Case
from tests.networks import rand
from underfire.attacks.adv2.scheme import Bilevel
from underfire.errors import InputError, NotFitted, UnderfireError, Unsupported

cam = uf.interpreters.cam
HOLED = rand(6, 1, 6, 6).masked_fill(torch.eye(6).bool(), float("nan"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": rand(3, 1, 6, 6)}, InputError, ["[6, 1, h, w]", "(3, 1, 6, 6)"]),
        ({"target": "benign"}, InputError, ["[6, 1, h, w]", "str"]),
        ({"target": rand(6, 1, 12, 12)}, InputError, ["12 x 12", "6 x 6", "resize=True"]),
        ({"target": torch.zeros(6, 1, 6, 6)}, InputError, ["image 0", "one value"]),
        ({"target": HOLED}, InputError, ["NaN"]),
        ({"warm_steps": -1}, InputError, ["warm_steps", "-1"]),
        ({"encoder_weight": -1.0}, InputError, ["encoder_weight", "-1"]),
        ({"interpreter": uf.interpreters.prototypes}, Unsupported, ["prototypes", "grad_cam", "adv2_black_box"]),
        ({"interpreter": uf.interpreters.surrogate}, Unsupported, ["surrogate", "grad_cam", "adv2_black_box"]),
        ({"interpreter": uf.interpreters.RTS()}, NotFitted, ["fit", "underfire train rts"]),
        ({"interpreter": uf.interpreters.RTS}, NotFitted, ["fit"]),
        ({"interpreter": uf.find("interpreter", "rts")}, NotFitted, ["fit"]),
        ({"norm": "patch", "eps": 0.1, "mask": torch.ones(12, 12)}, InputError, ["covers 1 ", "eps"]),
        ({"norm": "l0"}, Unsupported, ["'l0'", "linf", "patch"]),
        ({"interpreter": "cam"}, InputError, ["function", "'cam'"]),
        ({"interpreter": None}, InputError, ["function", "None"]),
        ({"confidence": float("nan")}, InputError, ["[0, 1]", "nan"]),
        ({"confidence": 95.0}, InputError, ["[0, 1]", "95"]),
        ({"tau": -1.0}, InputError, ["tau", "-1"]),
        ({"scheme": {"follow": 8}}, InputError, ["Bilevel", "follow"]),
    ],
)
def test_one_line_says_what_is_wrong(
    small: Case, options: dict[str, Any], error: type[UnderfireError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        uf.attacks.adv2(small.model, small.x, small.y, **{"interpreter": cam, "steps": 1, "warm_steps": 1, **options})
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_constants_of_the_scheme_are_numbers() -> None:
    constants: list[dict[str, Any]] = [{"follow": "4"}, {"ahead": 0}, {"longest": None}]
    for wrong in constants:
        with pytest.raises(InputError, match=next(iter(wrong))):
            Bilevel(**wrong)


def test_a_goal_that_is_the_label_is_kept_only_when_asked(small: Case) -> None:
    options: dict[str, Any] = {"interpreter": cam, "goal": small.y, "steps": 15, "warm_steps": 0, "eps": 0.1}
    with pytest.raises(InputError, match="6 of 6"):
        uf.attacks.adv2(small.model, small.x, small.y, **options)
    target = torch.zeros(6, 1, 6, 6)
    target[..., :3, :3] = 1
    x_adv = uf.attacks.adv2(small.model, small.x, small.y, keep_class=True, target=target, confidence=0.3, **options)
    assert torch.equal(small.model(x_adv).argmax(1), small.y)
    gap = [uf.measures.map_l1(target, cam(small.model, v, small.y)).mean() for v in (small.x, x_adv)]
    assert gap[1] < 0.9 * gap[0]


def test_a_target_of_another_size_is_resized_when_asked(small: Case) -> None:
    target = rand(6, 1, 12, 12)
    options: dict[str, Any] = {"interpreter": cam, "steps": 3, "warm_steps": 1}
    ours = uf.attacks.adv2(small.model, small.x, small.y, target=target, resize=True, **options)
    shrunk = torch.nn.functional.interpolate(target, (6, 6), mode="bilinear", antialias=True)
    assert torch.equal(ours, uf.attacks.adv2(small.model, small.x, small.y, target=shrunk, **options))
