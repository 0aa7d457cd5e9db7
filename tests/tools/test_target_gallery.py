"""The picture of the targets of ADV²: small, with a row and a loss for each target."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tools.target_gallery import TARGETS, arrow, draw


def test_the_arrow_points_to_the_right() -> None:
    right = arrow()
    assert right.unique().tolist() == [0, 1] and right.equal(right.flip(0))
    assert right[:, 16:].sum() > right[:, :16].sum()


@pytest.mark.slow
def test_every_target_has_a_row(tmp_path: Path) -> None:
    losses = draw(tmp_path / "targets.webp", steps=2, warm_steps=1)
    assert list(losses) == list(TARGETS)
    assert losses["the clean map"] < losses["a picture"]
    assert (tmp_path / "targets.webp").stat().st_size <= 60_000
    with Image.open(tmp_path / "targets.webp") as image:
        assert image.height > image.width > 400
