"""The experiments run, compare with what was published, and leave a table and its numbers."""

import pytest

from underfire import models, reproductions
from underfire.errors import DataError, InputError
from underfire.reproductions import registry
from underfire.reproductions.photographs import photographs


@pytest.mark.slow
def test_photographs_are_classified_correctly_and_the_same_again(data_root):
    weights = data_root / "weights" / "mobilenet_v1_075_imagenet.safetensors"
    model = models.load(f"{weights}?arch=mobilenet_v1_075_imagenet")
    batch, again = (photographs(data_root, model, 6, seed=0) for _ in range(2))
    assert (model.predict(batch.x).argmax(1) == batch.y).all()
    assert batch.ids == again.ids


def test_tables_are_markdown_and_differences_are_shown():
    outcome = registry.Outcome("Title", "Paper", {"n": 3}, ("a", "b"), [["1", "2"]], ["A note."])
    text = registry._as_markdown("x", outcome, "default")
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |\n" in text
    assert "n: 3" in text


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
    with pytest.raises(InputError, match="quick"):
        reproductions.run("adv2-imagenet", out=tmp_path, quick=True, full=True)
