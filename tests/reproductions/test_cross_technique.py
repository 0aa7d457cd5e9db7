"""Transfer between techniques at a tiny size, and its arithmetic by hand."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from underfire import reproductions
from underfire.reproductions import cross_technique as experiment
from underfire.reproductions.heatmaps import heatmaps


@pytest.mark.slow
def test_subsets_are_disjoint_and_models_answer(data_root):
    parts = experiment.subsets(data_root, 60, seed=0)
    assert len({name for part in parts for name in part.ids}) == 5 * 60
    for technique in experiment.TECHNIQUES:
        soft, real = experiment.train(technique, parts[0], 0, 1, "cpu")
        x_adv = experiment.craft(technique, soft, parts[1])
        assert x_adv.shape == parts[1].x.shape
        clean = experiment.predict(real, parts[1].x)
        if technique != "kNN":  # whose soft version is another function
            assert torch.equal(clean, experiment.predict(soft, parts[1].x))


def test_rates_by_hand():
    y = torch.tensor([0, 0, 0, 0])
    clean = torch.tensor([[0, 0, 0, 1]] * 5)  # the last image is wrong anyway
    answers = torch.zeros(5, 5, 4, dtype=torch.int64)
    answers[:, :, 0] = 1  # the first is always fooled
    answers[0, 0, 1] = 2  # the second by one of the five on its own subset
    answers[0, 1, 2] = 2  # the third by one of twenty on another
    answers[:, :, 3] = 1
    intra = experiment._intra(answers, clean, y)
    assert intra[0][0].value == pytest.approx(2 / 3) and intra[0][0].n == 3
    assert intra[4][4].value == pytest.approx(1 / 3)
    every = {(s, t): answers for s in experiment.TECHNIQUES for t in experiment.TECHNIQUES}
    right = dict.fromkeys(experiment.TECHNIQUES, clean)
    same = experiment._cross(every, right, y, same=True)["DNN"]
    other = experiment._cross(every, right, y, same=False)["DNN"]
    assert same["LR"].value == pytest.approx((1 + 1 / 5) / 3) and same["LR"].n == 3
    assert other["LR"].value == pytest.approx((1 + 1 / 20) / 3)
    assert same["Ens."].value == same["LR"].value


@pytest.mark.slow
def test_a_quick_run_leaves_tables_numbers_and_pictures(data_root, tmp_path):
    page = reproductions.run("cross-technique", data_root=data_root, out=tmp_path, quick=True)
    text = page.read_text()
    assert "quick run" in text
    for heading in ("## Accuracies", "## Within a technique", "## Substitutes"):
        assert heading in text
    document = json.loads((tmp_path / "cross-technique.json").read_text())["results"]
    assert document["cross"]["DT"]["DT"]["value"] == 1  # its own tree is always fooled
    assert {row["queries"] for row in document["substitutes"]} == {200}
    for picture in ("cross", "intra"):
        assert f"(cross-technique-{picture}.svg)" in text
        ElementTree.parse(tmp_path / f"cross-technique-{picture}.svg")


def test_a_heat_map_shows_every_rate_and_is_the_same_again():
    matrices = {"a": [[0.0, 0.25], [0.5, 1.0]], "b": [[0.1, 0.2], [0.3, 0.4]]}
    svg = heatmaps(matrices, ["r", "s"], ["c", "d"])
    assert svg == heatmaps(matrices, ["r", "s"], ["c", "d"])
    assert all(f">{100 * rate:.0f}<" in svg for rows in matrices.values() for row in rows for rate in row)
