"""The gallery: a small picture and a caption for every attack asked for, without any data."""

from __future__ import annotations

import re
import sys
from functools import partial

import pytest
import torch
from PIL import Image

from tools import galleries
from tools.attack_gallery import page, pictures, settings, subjects
from underfire import cards, find
from underfire.catalog import AttackFacts, Card
from underfire.errors import InputError
from underfire.interpreters import cam
from underfire.model import Classifier


@pytest.mark.slow
def test_pictures_are_small_and_the_page_shows_them(tmp_path, monkeypatch, capsys):
    names = ["adv2", "decision_tree", "fgsm"]
    monkeypatch.setitem(
        settings.SETTINGS, "adv2", settings.Setting(options={"interpreter": cam, "steps": 3, "warm_steps": 2})
    )
    monkeypatch.delenv("UNDERFIRE_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["gallery", "--out", str(tmp_path), "--only", *names])
    galleries.main("attack", page.write)
    assert str(tmp_path / "gallery.md") in capsys.readouterr().out
    text = (tmp_path / "gallery.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == names
    pictures = re.findall(r"!\[(\w+): ([^\]]+)\]\((gallery/\w+\.webp)\)", text)
    assert [name for name, _, _ in pictures] == names
    for name, alt, path in pictures:
        assert (tmp_path / path).stat().st_size <= 60_000
        with Image.open(tmp_path / path) as image:
            assert image.width > 400
            assert image.height > (400 if name == "adv2" else 150)
        assert "the change times" in alt
    assert "with `interpreter=cam, steps=3, warm_steps=2`" in text
    assert "On a digit, 8 x 8 pixels, with its defaults." in text
    assert find("attack", "fgsm").summary in text


def test_a_wrong_name_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gallery", "--out", str(tmp_path / "docs"), "--only", "fgms"])
    with pytest.raises(SystemExit) as stopped:
        galleries.main("attack", page.write)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "did you mean 'fgsm'?" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_the_first_image_that_is_fooled_is_shown():
    class Dark(torch.nn.Module):
        def forward(self, x):
            light = x.mean((1, 2, 3))
            return torch.stack([light - 0.5, 0.5 - light], 1)

    def darker(model, x, y, *, goal=None, eps=0.2, generator=None):
        """Take light away."""
        return (x - eps).clamp_min(0)

    model = Classifier(Dark())
    x = torch.tensor([0.9, 0.8, 0.6, 0.55])[:, None, None, None].expand(4, 1, 4, 4)
    subject = subjects.Subject("grey", model, x, torch.zeros(4, dtype=torch.int64))
    card = Card("attack", "darker", darker, "", AttackFacts())
    shown, changed, _ = pictures._attacked(card, subject, {}, 0)
    assert shown.mean() == pytest.approx(0.6)
    assert changed.mean() == pytest.approx(0.4)
    shown, _, _ = pictures._attacked(card, subject, {"eps": 0.01}, 0)  # holds on all that are tried
    assert shown.mean() == pytest.approx(0.6)
    universal = Card("attack", "darker", darker, "", AttackFacts(universal=True))
    assert pictures._attacked(universal, subject, {"eps": 0.07}, 0)[0].mean() == pytest.approx(0.55)


def test_settings_follow_from_the_card():
    def slow(model, x, y, *, surrogate, goal=None, eps=1.0, steps=1000, queries=100, generator=None):
        """Take its time."""

    card = Card("attack", "slow", slow, "", AttackFacts(knowledge="black-box"))
    setting = settings.setting_of(card)
    assert setting.on == ("digits",)
    assert setting.options == {"steps": settings.STEPS}
    shown = pictures.show(card, {}, None, 0)
    assert shown.caption == "Not shown: it needs the options surrogate."
    kept = {"fgsm": "## fgsm\n\nSign."}
    text = page.page([shown], kept)
    assert "Not shown" in text and "![" not in text
    assert list(page.sections(text)) == ["fgsm", "slow"]
    assert page.sections(text)["fgsm"] == kept["fgsm"]
    assert pictures._word(partial(cam)) == "cam"
    assert set(settings.SETTINGS) <= {card.name for card in cards("attack")}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder of data"):
        page.write(tmp_path, root=tmp_path / "none")
    with pytest.raises(InputError, match="did you mean 'pgd'"):
        page.write(tmp_path, names=["pdg"])
