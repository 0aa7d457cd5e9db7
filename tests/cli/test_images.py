"""Images of the command line: files, folders and data URIs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from underfire.cli.images import open_images
from underfire.errors import DataError


def test_all_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(b"no image")
    found = open_images(str(tmp_path), n=None, size=None, batch_size=4, seed=0)
    with pytest.raises(DataError) as raised:
        list(found.batches)
    assert "a.png" in str(raised.value) and "c.png" in str(raised.value) and "b.png" not in str(raised.value)
