"""A method on the command line is checked like an entry of a spec, and the message names what was typed."""

from __future__ import annotations

import pytest

from underfire.cli import options
from underfire.errors import InputError


@pytest.mark.parametrize(
    ("setting", "value"),
    [("alpha=8/255", 8 / 255), ("alpha=1e-3", 1e-3), ("steps=40", 40), ("keep=last", "last"), ("step_size=null", None)],
)
def test_a_value_has_the_type_of_its_option(setting: str, value: object) -> None:
    name = setting.split("=")[0].replace("alpha", "step_size")
    entry = options.attack("pgd", [setting.replace("alpha", "step_size")], eps="8/255")
    assert entry.options == {name: value} and type(entry.options[name]) is type(value)
    assert entry.eps == [8 / 255]


def test_flags_and_settings_mean_the_same() -> None:
    flags = options.attack("pgd", [], eps="0.5", norm="l2", steps=3, goal="random-target", interpreter=None)
    settings = options.attack("pgd", ["eps=0.5", "norm=l2", "steps=3"], goal="random-target")
    assert flags == settings
    assert (flags.eps, flags.norm, flags.options, flags.goal) == ([0.5], "l2", {"steps": 3}, "random-target")


@pytest.mark.parametrize(
    ("settings", "flags", "message"),
    [
        (["stesp=3"], {}, r"unknown key 'stesp'; did you mean 'steps'\?"),
        (["steps"], {}, "name=value, got 'steps'"),
        (["steps=2.5"], {}, "'steps' should be a whole number, got 2.5"),
        (["steps=0"], {}, "'steps' should be at least 1, got 0"),
        (["keep=worst"], {}, "'keep' should be .*'last'.*, got 'worst'"),
        (["steps=1", "steps=2"], {}, "option 'steps' is given twice"),
        (["steps=1"], {"steps": 2}, "option 'steps' is given twice, by --steps and by --set"),
        (["goal=3"], {}, "'goal' cannot be set"),
        (["objective=3"], {}, "'objective'.*got 3"),
        ([], {"eps": "-0.1"}, r"'eps\[0\]' should be greater than or equal to 0, got"),
        ([], {"eps": "big"}, r"'eps\[0\]' should be a valid number, got 'big'"),
        (["eps=[0.1, 0.2]"], {}, r"eps must be one size here, got 2: \[0.1, 0.2\]"),
        ([], {"norm": "l7"}, "'norm': pgd has no norm 'l7'; did you mean 'l2'"),
    ],
)
def test_a_wrong_attack_is_named(settings: list[str], flags: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        options.attack("pgd", settings, **flags)


def test_a_wrong_interpreter_is_named() -> None:
    assert options.interpreter("grad_cam", ["layer=4"]).options == {"layer": "4"}
    assert options.interpreter("grad_cam", ["layer=['a, b', c]"]).options["layer"] == ["a, b", "c"]
    assert options.interpreter("grad_cam", ["layer=[2, '4']", "grid=[3, 4]"]).options == {
        "layer": ["2", "4"],
        "grid": [3, 4],
    }
    assert options.interpreter("grad_cam", ["layer=null"]).options == {"layer": None}
    assert options.interpreter("smooth_grad", ["interpreter=cam"]).options == {"interpreter": "cam"}
    with pytest.raises(InputError, match="'grad_cma'.* 'grad_cam'"):
        options.interpreter("grad_cma")
    with pytest.raises(InputError, match="'lyer'.* 'layer'"):
        options.interpreter("grad_cam", ["lyer=conv"])
