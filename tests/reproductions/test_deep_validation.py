"""The experiments on Deep Validation: their claims, the sign of kernel density, and a small run on real data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from underfire import models, reproductions
from underfire.records import Interval
from underfire.reproductions.detection import deep_validation_cifar10, deep_validation_mnist
from underfire.reproductions.detection.page import DENSITY, JOINT, SQUEEZING, decided, signs_of
from underfire.reproductions.detection.study import Measured, Sizes

PUBLISHED = deep_validation_mnist.PUBLISHED


def test_each_claim_is_reached_or_missed() -> None:
    values = {JOINT: 0.99, SQUEEZING: 0.98, DENSITY: 0.991, "layer 1": 0.9, "layer 2": 0.99}
    areas = {name: {"overall": Interval(value, value, value, 9)} for name, value in values.items()}
    verdicts = [verdict.strip("*") for _, verdict, _ in decided(areas, PUBLISHED, 2)]
    assert verdicts == ["reached", "reached", "missed", "reached"]


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


@pytest.mark.slow
def test_a_small_run_on_digits_leaves_a_page(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = f"{data_root}/weights/trades/mnist_small_cnn.safetensors?arch=mnist_small_cnn"
    study = replace(
        deep_validation_mnist.STUDY,
        network=lambda setting: models.load(weights),
        transformations=("complement", "contrast_1"),
        layers=("classifier.relu1", "classifier.relu2"),
        sizes={"quick": Sizes(fit=200, searched=20, changed=30, clean=30, strengths=1)},
    )
    monkeypatch.setattr(deep_validation_mnist, "STUDY", study)
    name = "deep-validation-mnist"
    text = reproductions.run(name, data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True).read_text()
    assert "| layer 2, `classifier.relu2` |" in text and "| Deep Validation, joint |" in text and "0.9937" in text
    assert "contrast_1 | left out: not within its range" in text and "joint ≥ 0.985 overall | **" in text
    assert str(data_root) not in text
