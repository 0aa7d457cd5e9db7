"""The experiments run, compare with what was published, and leave a table and its numbers."""

import json

import pytest

from underfire import reproductions
from underfire.errors import DataError, InputError
from underfire.reproductions import adv2_imagenet, interpretability_aware_mnist, registry


@pytest.mark.slow
@pytest.mark.parametrize(("name", "eps"), [("normal", 0.05), ("int2", 0.0), ("igsum", 0.0)])
def test_published_cells_to_the_digit(data_root, name, eps):
    images = interpretability_aware_mnist.images(data_root)
    published = interpretability_aware_mnist.PUBLISHED[name][1][interpretability_aware_mnist.RADII.index(eps)]
    # 40 steps of the 200: at this radius the rest of them change no prediction.
    accuracy = interpretability_aware_mnist.accuracy(name, images, eps, data_root, "cpu", steps=40)
    assert accuracy == pytest.approx(published, abs=1e-6)


@pytest.mark.slow
def test_photographs_are_right_and_goals_are_other_classes(data_root):
    from underfire import models

    weights = data_root / "weights" / "mobilenet_v1_075_imagenet.safetensors"
    model = models.load(f"{weights}?arch=mobilenet_v1_075_imagenet")
    batch, goal = adv2_imagenet.photographs(data_root, model, 6, seed=0)
    again, same_goal = adv2_imagenet.photographs(data_root, model, 6, seed=0)
    assert (model.predict(batch.x).argmax(1) == batch.y).all()
    assert (goal != batch.y).all()
    assert batch.ids == again.ids
    assert (goal == same_goal).all()


@pytest.mark.slow
def test_a_quick_run_leaves_a_marked_table_and_its_numbers(data_root, tmp_path):
    seen = []
    table = reproductions.run(
        "adv2-imagenet", data_root=data_root, out=tmp_path / "new", quick=True, progress=lambda *step: seen.append(step)
    )
    text = table.read_text()
    assert "no reproduction" in text
    for name in adv2_imagenet.ATTACKED:
        assert f"ADV² on {name}" in text
    document = json.loads((tmp_path / "new" / "adv2-imagenet.json").read_text())
    assert document["quick"] is True
    assert document["results"]["CAM"]["map_l1"]["adv2"]["n"] == 2
    assert seen[-1][0] == seen[-1][1]
    assert sorted(p.name for p in table.parent.iterdir()) == ["adv2-imagenet.json", "adv2-imagenet.md"]


def test_tables_are_markdown_and_differences_are_shown():
    outcome = registry.Outcome("Title", "Paper", {"n": 3}, ("a", "b"), [["1", "2"]], ["A note."])
    text = registry._as_markdown("x", outcome, quick=False)
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |\n" in text
    assert "n: 3" in text
    assert interpretability_aware_mnist._cell(0.53, 0.53) == "0.530"
    assert interpretability_aware_mnist._cell(0.5, 0.53) == "0.500 (0.530)"
    assert interpretability_aware_mnist._cell(0.5, None) == "0.500\\*"


def test_every_experiment_says_what_it_is():
    assert {"adv2-imagenet", "cross-technique", "interpretability-aware-mnist"} <= set(reproductions.names())
    assert all(len(reproductions.summary(name)) > 40 for name in reproductions.names())


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'adv2-imagenet'"):
        reproductions.run("adv2-imagnet", out=tmp_path)
    monkeypatch.delenv("UNDERFIRE_DATA", raising=False)
    with pytest.raises(DataError, match="give --data or set UNDERFIRE_DATA"):
        reproductions.run("adv2-imagenet", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
