"""The gallery of explanations: what is drawn, and what is said where nothing can be."""

import pytest

from tools import interpreter_gallery as gallery
from underfire.catalog import Card, InterpreterFacts, find
from underfire.errors import InputError, Unsupported


@pytest.mark.slow
def test_the_page_shows_every_sheet_and_strip(tmp_path):
    place = gallery.write(tmp_path, names=["gradient", "cam"])
    text = place.read_text()
    shown = sorted(path.name for path in (tmp_path / "interpreter-gallery").iterdir())
    assert shown == ["all-a-digit.webp", "cam.webp", "classes.webp", "gradient.webp"]
    assert all(f"(interpreter-gallery/{name})" in text for name in shown)
    assert "## gradient" in text
    assert "## cam" in text


def test_what_cannot_be_shown_says_why():
    def stubborn(model, x, y):
        raise Unsupported("it wants a transformer")

    shown = gallery.show(
        Card("interpreter", "stubborn", stubborn, "A, B, 2020", InterpreterFacts()), gallery.subjects(None, 0)
    )
    assert shown.pictures == {}
    assert shown.words == ["Not on a digit: it wants a transformer."]


@pytest.mark.slow
def test_photographs_are_cut_square_and_explained(data_root):
    there = gallery.subjects(data_root, 0)
    assert [subject.title.split(",")[0] for subject in there[1:]] == ["espresso", "Egyptian cat"]
    assert all(subject.x.shape == (1, 3, 224, 224) for subject in there[1:])
    assert set(gallery.show(find("interpreter", "cam"), there).pictures) == {"a digit", "coffee", "a cat"}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder of data"):
        gallery.write(tmp_path, root=tmp_path / "none")
    with pytest.raises(InputError, match="did you mean 'grad_cam'"):
        gallery.write(tmp_path, names=["gradcam"])
