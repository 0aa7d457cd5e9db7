"""What `examples/` and the template of `underfire init` show works: the factory, the calls from Python, the spec."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from underfire.audit.aims import QUADRANTS
from underfire.audit.run import run
from underfire.audit.spec import parse_spec, read_yaml
from underfire.audit.summary import findings
from underfire.audit.templates import template

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_model_of_the_example_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    import own_model  # type: ignore[import-not-found]

    own_model.main()
    said = dict(line.split(":") for line in capsys.readouterr().out.splitlines())
    assert said["right before"].split()[0] in ("7", "8")
    assert said["right after"].split()[0] == "0"
    assert said["largest change"].strip() == "8.0/255"
    spec = parse_spec(
        {
            "model": "python:own_model:build",
            "data": {"uri": "cluttered-digits:test", "n": 4},
            "attacks": [{"name": "fgsm", "eps": 0}],
            "masking": False,
        }
    )
    assert run(spec, tmp_path / "run").missing == 0
    sys.modules.pop("own_model")


def test_the_spec_of_the_example_is_complete() -> None:
    spec = parse_spec(read_yaml(template()))
    assert [attack.title for attack in spec.attacks] == ["PGD", "PGD L2", "square linf", "ADV² on Grad-CAM"]
    assert spec.attacks[3].interpreter == spec.interpreters[1]
    assert set(spec.attacks[3].eps) <= set(spec.attacks[0].eps)
    assert (EXAMPLES / "audit.yaml").read_text() == template(), "`python docs/generate.py` writes the example again"


def test_the_spec_of_the_quadrants_aims_at_each_of_them() -> None:
    spec = parse_spec(read_yaml((EXAMPLES / "four_quadrants.yaml").read_text()))
    assert {attack.card.facts.quadrant for attack in spec.attacks} == {"prediction changed", *QUADRANTS}
    assert len({attack.eps[0] for attack in spec.attacks}) == 1  # so that noise of the same size is the control


def test_the_spec_of_adv2_has_all_that_a_gap_and_a_transfer_matrix_need() -> None:
    spec = parse_spec(read_yaml((EXAMPLES / "adv2.yaml").read_text()))
    plain, *aimed = spec.attacks
    assert [attack.interpreter for attack in aimed if attack.interpreter] == spec.interpreters
    kinds = {interpreter.card.facts.family for interpreter in spec.interpreters}
    assert kinds == {"back-propagation", "representation", "model-guided", "perturbation"}  # those of the paper
    assert len(plain.eps) > 1 and all(attack.eps == plain.eps for attack in aimed)
    assert {"map_l1", "map_l2", "map_iou"} <= {measure.name for measure in spec.measures}
    assert spec.gallery and spec.detectors and spec.masking


def test_the_spec_of_transfer_attacks_each_defence_through_and_around_it() -> None:
    spec = parse_spec(read_yaml((EXAMPLES / "transfer.yaml").read_text()))
    assert [source.title for source in spec.sources] == ["cluttered_digits"]
    assert {victim.defenses[0].name for victim in spec.victims if victim.through and victim.defenses} == {
        "bit_depth",
        "jpeg",
        "spatial_smoothing",
        "resize_and_pad",
    }
    assert spec.sample is not None and spec.sample.n == 20 and spec.draws == 5


@pytest.mark.slow
def test_the_spec_of_transfer_runs_without_a_network_connection(tmp_path: Path) -> None:
    content = read_yaml((EXAMPLES / "transfer.yaml").read_text())
    quick = [{**attack, **({"steps": 1} if "steps" in attack else {})} for attack in content["attacks"][1:3]]
    changes = {"attacks": quick, "victims": content["victims"][:3], "sample": 4, "executor": "in-process", "gallery": 0}
    found = findings(run(parse_spec({**content, **changes}), tmp_path)).transfer
    assert found is not None and found.sample.n == 4
    assert {(one.victim, one.way) for one in found.results if one.victim == "JPEG"} == {
        ("JPEG", "around"),
        ("JPEG", "through"),
    }
