"""A patch to print: its size on paper, its shape, its colours."""

import pytest
import torch
from PIL import Image

from tests.networks import rand
from underfire.errors import InputError
from underfire.figures.printing import save_patch


def test_a_file_to_print(tmp_path):
    patch = rand(3, 21, 21)
    mask = torch.zeros(21, 21)
    mask[5:15, 5:15] = 1
    save_patch(patch, mask, tmp_path / "patch.png", width=80, at_least=200)
    with Image.open(tmp_path / "patch.png") as file:
        assert file.mode == "RGBA"
        assert file.size == (210, 210)
        assert [210 / dpi * 25.4 for dpi in file.info["dpi"]] == pytest.approx([80, 80], rel=1e-3)
        assert file.getchannel("A").getpixel((55, 145)) == 255
        assert file.getchannel("A").getpixel((45, 55)) == 0
        assert file.getpixel((100, 100))[:3] == tuple((patch[:, 10, 10] * 255).round().int().tolist())
    with pytest.raises(InputError, match="does not exist"):
        save_patch(patch, mask, tmp_path / "none" / "patch.png")
