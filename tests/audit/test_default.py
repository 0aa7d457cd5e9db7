"""The spec that comes with underfire works as it is, and attacks what it says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from underfire.audit.preflight import preflight
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec, load_spec
from underfire.audit.summary import findings
from underfire.audit.target import open_target


@pytest.fixture
def default() -> AuditSpec:
    """The embedded spec."""
    return load_spec(Path(str(files("underfire.audit") / "default.yaml")))


@pytest.mark.slow
def test_it_passes_its_own_preflight(default: AuditSpec) -> None:
    target = open_target(default)
    preflight(target)
    assert len(target.data) == 100
    assert target.labels == tuple("0123456789")
    assert target.preview.first.mask is not None  # so that explanations can be scored


def test_every_attack_on_an_explanation_is_measured_on_it_and_against_pgd(default: AuditSpec) -> None:
    shown = {entry.title for entry in default.interpreters}
    pgd = {(entry.norm, eps) for entry in default.attacks if entry.name == "pgd" for eps in entry.eps}
    aimed = [entry for entry in default.attacks if entry.interpreter]
    assert {entry.interpreter.title for entry in aimed if entry.interpreter} == shown == {"gradient", "cam", "grad_cam"}
    assert {(entry.norm, eps) for entry in aimed for eps in entry.eps} <= pgd
    titles = [entry.title for entry in default.attacks]
    assert titles == ["FGSM", "PGD", "PGD L2", "ADV² on CAM", "ADV² on Grad-CAM", "ADV² on gradient"]


@pytest.mark.slow
def test_a_small_part_of_it_tells_the_story(default: AuditSpec, tmp_path: Path) -> None:
    wanted = ("PGD", "ADV² on CAM")
    attacks = [entry.model_copy(update={"eps": [8 / 255]}) for entry in default.attacks if entry.title in wanted]
    data = default.data.model_copy(update={"n": 20})
    found = findings(run(default.model_copy(update={"attacks": attacks, "data": data, "masking": False}), tmp_path))
    assert found.clean is not None
    assert found.clean.value >= 0.9
    assert all(result.robust.value <= 0.1 and result.within == 1.0 for result in found.attacks)
    (gap,) = [d for d in found.differences if d.interpreter == "cam"]
    assert gap.forged
    assert gap.l1.high < 0  # aimed at the explanation, the attack keeps more of it than PGD does
    inside = [shift.measures["mass_inside"] for shift in found.shifts]
    assert all(measured.clean is not None and measured.value.n > 0 for measured in inside)
