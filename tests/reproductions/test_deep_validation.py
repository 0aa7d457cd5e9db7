"""The experiments on Deep Validation: their claims, the sign of kernel density, and a small run on real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underfire import models, reproductions
from underfire.records import Interval
from underfire.reproductions.detection import (
    corner_case_detectors,
    deep_validation_attacks_mnist,
    deep_validation_cifar10,
    deep_validation_mnist,
)
from underfire.reproductions.detection import study as study_of_corner_cases
from underfire.reproductions.detection.attacks import Attack
from underfire.reproductions.detection.corner_case_detectors import DENSITY, JOINT, SQUEEZING
from underfire.reproductions.detection.page import decided, missed, signs_of
from underfire.reproductions.detection.study import Measured, Sizes

PUBLISHED = deep_validation_mnist.PUBLISHED


def test_each_claim_is_reached_or_missed() -> None:
    values = {JOINT: 0.99, SQUEEZING: 0.98, DENSITY: 0.991, "layer 1": 0.9, "layer 2": 0.99}
    areas = {name: {"overall": Interval(value, value, value, 9)} for name, value in values.items()}
    verdicts = [verdict.strip("*") for _, verdict, _ in decided(areas, PUBLISHED, 2)]
    assert verdicts == ["reached", "reached", "missed", "reached"]


def test_the_page_says_where_the_joint_validator_misses_its_figure() -> None:
    columns = {"rotation_45": 0.85, "scale_0.6+rotation_45": 0.77, "shear_0.4": 0.99}
    areas = {name: Interval(value, value, value, 9) for name, value in columns.items()}
    overall = {value: {JOINT: areas | {"overall": Interval(value, value, value, 9)}} for value in (0.9, 0.99)}
    assert "0.985 on scale+rotation (0.770), rotation (0.850)." in missed(overall[0.9], PUBLISHED)
    assert missed(overall[0.99], PUBLISHED) == ""


@pytest.mark.parametrize(("shift", "said"), [(3.0, "was not negated; negated, it would be 0.8564"), (-3.0, "denser")])
def test_the_page_says_which_sign_gives_the_published_value(shift: float, said: str) -> None:
    names, draw = (DENSITY, "density, own"), np.random.default_rng(0)
    clean = {name: draw.normal(size=200) for name in names}
    cases = {"rotation": {name: draw.normal(size=200) + shift for name in names}}
    table, text = signs_of(Measured((), clean, cases, {}, ()), PUBLISHED)
    assert said in text and table.count("\n") == 4


def test_every_test_image_has_one_use_and_there_are_enough() -> None:
    for study in (deep_validation_mnist.STUDY, deep_validation_cifar10.STUDY):
        for sizes in study.sizes.values():
            assert sizes.searched + sizes.changed + sizes.clean <= 10_000
        assert study.sizes["default"].changed >= 500 and study.sizes["default"].fit >= 12_000


@pytest.fixture(scope="module")
def small(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The arguments of small runs on digits, which share their fitted detectors in one work folder."""
    weights = f"{data_root}/weights/trades/mnist_small_cnn.safetensors?arch=mnist_small_cnn"
    study = replace(
        deep_validation_mnist.STUDY,
        network=lambda setting: models.load(weights),
        transformations=("complement", "contrast_1"),
        layers=("classifier.relu1", "classifier.relu2"),
        sizes={"quick": Sizes(fit=200, searched=20, changed=30, clean=30, strengths=1)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deep_validation_mnist, "STUDY", study)
        yield {"data_root": data_root, "work": tmp_path_factory.mktemp("work"), "quick": True}


@pytest.mark.slow
def test_a_small_run_on_digits_leaves_a_page(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = reproductions.run("deep-validation-mnist", out=tmp_path, **small).read_text()
    assert "| layer 2, `classifier.relu2` |" in text and "| Deep Validation, joint |" in text and "0.9937" in text
    assert "contrast_1 | left out: not within its range" in text and "joint ≥ 0.985 overall | **" in text
    assert str(small["data_root"]) not in text
    # the same again reads every fitted detector and every score from the work folder
    for place, name in ((study_of_corner_cases, "synthesise"), (study_of_corner_cases, "score_columns")):
        monkeypatch.setattr(place, name, None)
    monkeypatch.setattr(corner_case_detectors, "fit_all", None)
    assert reproductions.run("deep-validation-mnist", out=tmp_path, **small).read_text() == text


@pytest.mark.slow
def test_a_small_run_of_attacks_on_digits_leaves_a_page(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = {"FGSM": Attack("fgsm", {"eps": 0.8}), "JSMA, LL": Attack("jsma", {"share": 0.01}, "least likely")}
    monkeypatch.setattr(deep_validation_attacks_mnist, "ATTACKS", attacks)
    text = reproductions.run("deep-validation-attacks-mnist", out=tmp_path, **small).read_text()
    assert "| feature squeezing, paper | 0.9970 |" in text and "| feature squeezing, paper | 0.9441 |" in text
    assert "squeezing above Deep Validation on successful examples | **" in text and '"least likely"' in text
