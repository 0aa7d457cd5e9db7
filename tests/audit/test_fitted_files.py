"""Detectors of a spec that are fitted already: what a file stands for in an audit, and which files are refused."""

from __future__ import annotations

import pytest
import torch

from underfire import data, models
from underfire.audit.detection import detections
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.detectors import Calibration, Energy, Guard
from underfire.detectors.calibration import image_marks
from underfire.errors import DataError, SpecError
from underfire.learning import read_tensors, write_tensors
from underfire.measures.detection import threshold

MODEL = "python:audit_networks:linear"


@pytest.fixture(scope="module")
def guard():
    """A guard whose detector and threshold come from other images than the first 60, which the audits attack."""
    model, images = models.load(MODEL), data.load("digits:", n=150, seed=1)[:]
    learn, choose = images.take(torch.arange(60, 100)), images.take(torch.arange(100, 150))
    detector = Energy().fit(model, learn)
    scores = detector.score(model, choose.x)
    seen = frozenset(image_marks(learn.x)) | frozenset(image_marks(choose.x))
    return Guard(model, detector, threshold(scores, 0.1), calibration=Calibration(tuple(scores.tolist()), seen))


@pytest.fixture
def file(guard, tmp_path):
    guard.save(tmp_path / "energy.safetensors")
    return tmp_path / "energy.safetensors"


def entry(file, **more):
    return {"name": "energy", "file": str(file), **more}


@pytest.mark.slow
def test_an_audit_takes_the_detector_and_its_calibration_from_the_file(content, guard, file, tmp_path):
    rows = {"uri": "digits:", "n": 40, "seed": 1}
    spec = parse_spec(
        content(data=rows, detectors=[entry(file)], interpreters=None, gallery=0, false_positive_rate=0.1)
    )
    ledger = run(spec, tmp_path / "run")
    held = [row["score"] for row in ledger.sql("SELECT score FROM clean_scores WHERE held_out ORDER BY id")]
    assert sorted(held) == pytest.approx(sorted(guard.calibration.scores))
    images = data.load("digits:", n=40, seed=1)[:]
    wanted = dict(zip(images.ids, guard.detector.score(guard.undefended, images.x).tolist(), strict=True))
    found = {row["id"]: row["score"] for row in ledger.sql("SELECT id, score FROM clean_scores WHERE NOT held_out")}
    assert found == pytest.approx(wanted, abs=1e-4)
    assert {d.expected for d in detections(ledger, 0.1)} == {guard.threshold.rate}
    assert [d.aware for d in detections(ledger, 0.1)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"name": "softmax"}, "holds 'energy'"),
        ({"temperature": 2.0}, "has no meaning beside"),
        ({"learns_from": ["pgd linf"]}, "has no meaning beside"),
        ({"file": "nothing.safetensors"}, "nothing.safetensors"),
    ],
)
def test_a_wrong_entry_is_refused(content, file, changes, fact):
    with pytest.raises(SpecError, match=fact):
        parse_spec(content(detectors=[entry(file) | changes]))


def refused(content, file, tmp_path, **changes):
    with pytest.raises((SpecError, DataError)) as found:
        run(parse_spec(content(detectors=[entry(file)], **changes)), tmp_path / "run")
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()
    return str(found.value)


def test_a_file_that_does_not_fit_the_audit_is_refused_in_one_line(content, guard, file, tmp_path):
    assert "fingerprint" in refused(content, file, tmp_path, model="python:audit_networks:pooling")
    assert "needs 999 clean inputs" in refused(content, file, tmp_path, false_positive_rate=0.001)
    assert "images that the audit attacks" in refused(content, file, tmp_path, data="digits:")
    tensors, facts = read_tensors(file)
    write_tensors(file, tensors, facts | {"version": "1"})
    assert "has version '1'" in refused(content, file, tmp_path)
    Guard(guard.undefended, guard.detector, 0.5).save(file)
    assert "calibrated on" in refused(content, file, tmp_path)
