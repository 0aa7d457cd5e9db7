"""Write a patch to a file, to be printed and cut out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.figures.overlay import rgb
from underfire.files import as_path


def save_patch(patch: Tensor, mask: Tensor, path: str | Path, *, width: float = 50.0, at_least: int = 600) -> None:
    """Write a patch as a PNG file to print and cut out, transparent outside its shape, with its size on paper.

    Args:
        patch: `[C, h, w]`, one or three channels.
        mask: the shape of the patch, `[h, w]`: 1 inside, 0 outside.
        path: the file to write.
        width: the width of the patch on paper, in millimetres.
        at_least: enlarge the patch by a whole factor until it is this many pixels wide, so that pixels stay sharp.

    Raises:
        InputError: the folder does not exist, the width is not positive, or the patch is not `[1 or 3, h, w]`.
    """
    from PIL.Image import fromarray

    path = as_path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path.name}: the folder {path.parent} does not exist")
    if not width > 0:
        raise InputError(f"width must be more than 0 millimetres, got {width}")
    picture = torch.cat([rgb(patch), mask.detach().float().cpu()[None]])
    factor = max(1, -(-at_least // mask.shape[1]))
    picture = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    dpi = picture.shape[2] / (width / 25.4)
    fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(path, "PNG", dpi=(dpi, dpi))
