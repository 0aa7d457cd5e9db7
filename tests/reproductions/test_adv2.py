"""The experiments on ADV² run whole on a small part, and compute what they have in common once."""

import json
import math

import pytest

from underfire import reproductions
from underfire.audit.gaps import Gap
from underfire.audit.spec import parse_spec
from underfire.records import Interval
from underfire.reproductions.adv2 import ensemble, robust, skin_lesions, squeezing, stadv, system
from underfire.reproductions.registry import Setting


@pytest.mark.slow
def test_a_quick_run_leaves_a_marked_table_and_its_numbers(tmp_path):
    seen = []
    options = {"data_root": tmp_path, "out": tmp_path / "new", "work": tmp_path / "work", "quick": True}
    table = reproductions.run("adv2-digits", progress=lambda *step: seen.append(step), **options)
    text = table.read_text()
    assert "quick run" in text
    assert "MASK" not in text  # a quick run leaves it out
    for name in set(system.DIGITS.aims) - {"MASK"}:
        assert f"ADV² on {name}" in text
    assert text.count("wanted ≥ 0.5") == text.count("wanted ≥ 1.4") == len(system.DIGITS.aims) - 1
    document = json.loads((tmp_path / "new" / "adv2-digits.json").read_text())
    assert document["scale"] == "quick"
    assert document["results"]["cluttered digits"]["CAM"]["map_l1"]["PGD"]["n"] == 3
    assert seen[-1][0] == seen[-1][1]
    assert sorted(p.name for p in table.parent.iterdir()) == ["adv2-digits.json", "adv2-digits.md"]
    assert str(tmp_path) not in text
    # the same again needs no attack
    again = []
    reproductions.run("adv2-digits", progress=lambda *step: again.append(step), **options)
    assert again[-1][1] == 0


@pytest.mark.parametrize("name", ["DIGITS", "CIFAR10", "MOBILENET", "EFFICIENTNET"])
def test_the_specs_are_valid(tmp_path, name):
    one = getattr(system, name)
    spec = parse_spec(one.spec(Setting(tmp_path, tmp_path, tmp_path)))
    assert [entry.title for entry in spec.attacks] == ["PGD", *(f"ADV² on {label}" for label in one.aims)]
    assert parse_spec(one.spec(Setting(tmp_path, tmp_path, tmp_path, "full"))).data.n == 1000


def test_no_run_asks_for_more_lesions_than_there_are(tmp_path):
    usual, full = Setting(tmp_path, tmp_path, tmp_path), Setting(tmp_path, tmp_path, tmp_path, "full")
    assert skin_lesions.SKIN.n(usual) < skin_lesions.SKIN.n(full) == 98


def test_the_specs_of_defences_and_other_frameworks_are_valid(tmp_path):
    setting = Setting(tmp_path, tmp_path, tmp_path)
    warped = parse_spec(stadv._warped(system.CIFAR10, 32).spec(setting))
    assert {(entry.norm, *entry.eps) for entry in warped.attacks} == {("flow", 0.8)}
    alone = warped.attacks[0].options
    assert alone["weight"] == 5e-4  # the τ of ADV²
    assert 1 / (1 + math.exp(-alone["confidence"])) == pytest.approx(0.95, abs=0.005)  # and its confidence
    squeezed = parse_spec(squeezing.spec(system.DIGITS, setting))
    assert [entry.title for entry in squeezed.attacks] == list(squeezing.ATTACKS)
    assert len(squeezed.detectors) == 11
    joint = parse_spec(ensemble.spec(system.CIFAR10, setting))
    assert joint.attacks[-1].name == "adv2_ensemble"
    efforts = [entry.options["steps"] for entry in joint.attacks[1:]]
    assert efforts[-1] == max(efforts)  # the adaptive attack is not the one with the fewest steps
    assert all(parse_spec(robust.spec(family, "adv", setting)).attacks[0].eps for family in robust.FAMILIES)


def test_the_table_of_gaps_has_an_answer():
    def gap(low, high):
        return Gap(
            "CAM", "linf", (0.1,), (), Interval((low + high) / 2, low, high, 9), Interval(0, 0, 0, 9), (1.0,), (1.0,)
        )

    usual, less, more, like = gap(0.4, 0.6), gap(0.1, 0.39), gap(0.61, 0.9), gap(0.5, 0.7)
    results = {"f_normal": dict.fromkeys(robust.MAPS, usual), "f_adv": {"GRAD": less, "CAM": more, "Grad-CAM": like}}
    said = robust._answer("f", results)
    adversarial = robust.TRAININGS["adv"]
    assert f"GRAD: smaller with {adversarial}. CAM: larger with {adversarial}. Grad-CAM: no training differs." in said


def test_a_joint_detector_takes_the_largest_score():
    """At most one bit depth, one median and one non-local filter: 6 x 3 x 5 without the empty one."""
    every = list(squeezing.combinations())
    assert len(every) == len(set(every)) == 89
    assert max(map(len, every)) == 3
    scores = {"a": {"x": 1.0, "y": 4.0}, "b": {"x": 3.0, "y": 2.0}}
    assert squeezing._largest(scores, ("a", "b")) == [3.0, 4.0]
