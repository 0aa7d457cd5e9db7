"""The pictures of the page on transfer attacks: small, with a row for each view, and gradients that differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tools.transfer_gallery import VIEWS, draw_gradients, draw_terms, draw_views
from underfire.attacks.transfer.tokens import TOKENS


def test_every_view_of_a_token_has_a_row(tmp_path: Path) -> None:
    same = {"dim": "di", "sim": "si"}  # tokens with the same view
    assert {same.get(word, word) for word, token in TOKENS.items() if token.views} == set(VIEWS)


@pytest.mark.slow
def test_the_pictures_are_small(tmp_path: Path) -> None:
    titles = draw_views(tmp_path / "views.webp", "cluttered-digits:test")
    found = draw_gradients(tmp_path / "gradients.webp")
    assert titles == list(VIEWS)
    assert len({tuple(g.flatten()[:50].tolist()) for g in found.values()}) == len(found)
    assert torch.nn.functional.cosine_similarity(found["gradient"].flatten(), found["ti"].flatten(), 0) > 0.3
    terms = draw_terms(tmp_path / "terms.webp", outer_steps=1)
    assert not torch.equal(terms["change, mi"], terms["change, tap_mi"])
    assert (terms["attention, mi"].amax() < terms["attention"].amax()) and len(terms) == 7
    for name in ("views", "gradients", "terms"):
        assert (tmp_path / f"{name}.webp").stat().st_size <= 60_000
        with Image.open(tmp_path / f"{name}.webp") as image:
            assert image.width > 400
