"""Cut images into superpixels, average colours over them, and turn one number for each superpixel into a map."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.errors import InputError, Unsupported

SUPERPIXELS = ("quickshift", "slic", "grid")


def segment(x: Tensor, superpixels: str | Tensor = "quickshift", segments: int = 50) -> Tensor:
    """Return the superpixel of every pixel, int64 `[B, H, W]`, numbered from 0 without gaps in every image.

    Quickshift and SLIC are those of scikit-image; they run on the CPU, one image after the other, without a gradient.
    Quickshift has the constants of the lime package (kernel 4, distance 200, ratio 0.2) and decides itself how many
    superpixels there are. Its kernel is proportional to the shorter side of the image, 4 pixels at 224 and never below
    1, because a kernel of 4 pixels leaves small images in one piece.

    Args:
        x: images `[B, C, H, W]` in `[0, 1]`.
        superpixels: `"quickshift"`, `"slic"`, `"grid"`, or a segmentation: integers `[H, W]` for all images, or
            `[B, H, W]`.
        segments: about how many superpixels, for `"slic"` and `"grid"`.

    Raises:
        InputError: more superpixels than pixels, a segmentation that does not fit, or an image that quickshift leaves
            in one piece. Unsupported: the name is unknown.
    """
    height, width = x.shape[2:]
    if isinstance(superpixels, Tensor):
        return _renumbered(x, superpixels)
    if superpixels not in SUPERPIXELS:
        raise Unsupported(f"superpixels {superpixels!r} are unknown; choices: {', '.join(SUPERPIXELS)}, or a tensor")
    if not 1 <= segments <= height * width:
        raise InputError(f"segments must lie in 1 … {height * width}, the pixels of an image, got {segments}")
    if superpixels == "grid":
        # rows and columns of cells that are about square, at most one for each row or column of pixels
        rows = min(max(round((segments * height / width) ** 0.5), -(-segments // width), 1), height)
        columns = min(max(round(segments / rows), 1), width)
        row, column = torch.arange(height) * rows // height, torch.arange(width) * columns // width
        return (row[:, None] * columns + column).to(x.device).expand(len(x), -1, -1)
    # scikit-image, one image after the other
    found = [_segment_one(image, superpixels, segments) for image in x.detach()]
    pieces = torch.stack(found).to(x.device) if found else torch.zeros_like(x[:, 0], dtype=torch.int64)
    uncut = int((pieces.flatten(1).amax(1) == 0).sum())
    if superpixels == "quickshift" and uncut:
        raise InputError(
            f"quickshift leaves {uncut} of {len(x)} images in one piece; superpixels='slic' or 'grid' cut any image"
        )
    return pieces


def _renumbered(x: Tensor, given: Tensor) -> Tensor:
    """Return a segmentation for all images `x`, numbered from 0 without gaps."""
    height, width = x.shape[2:]
    pieces = given.expand(len(x), -1, -1) if given.dim() == 2 else given
    if pieces.shape != (len(x), height, width) or pieces.is_floating_point() or pieces.is_complex():
        raise InputError(
            f"superpixels must be integers [{height}, {width}] or [{len(x)}, {height}, {width}], got "
            f"{given.dtype} {tuple(given.shape)}"
        )
    numbered = [torch.unique(one, return_inverse=True)[1] for one in pieces]
    return torch.stack(numbered).to(x.device) if numbered else pieces.long()


def _segment_one(image: Tensor, kind: str, segments: int) -> Tensor:
    """Return the superpixel of every pixel of one image, `[H, W]`, by scikit-image."""
    from skimage.segmentation import quickshift, slic

    image = image.expand(3, -1, -1) if len(image) == 1 else image
    pixels, colour = image.permute(1, 2, 0).double().cpu().numpy(), len(image) == 3
    if kind == "quickshift":
        kernel = max(1.0, 4 * min(image.shape[1:]) / 224)
        pieces = quickshift(pixels, kernel_size=kernel, max_dist=200, ratio=0.2, convert2lab=colour)
    else:
        pieces = slic(pixels, n_segments=segments, start_label=0, convert2lab=colour)
    return torch.unique(torch.from_numpy(pieces).long(), return_inverse=True)[1]


def mean_colours(x: Tensor, pieces: Tensor) -> Tensor:
    """Return the images with every pixel in the mean colour of its superpixel, `[B, C, H, W]`; differentiable."""
    place = pieces.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    empty = x.new_zeros(*x.shape[:2], int(pieces.max()) + 1 if len(pieces) else 0)
    total = empty.scatter_add(2, place, x.flatten(2))
    count = empty.scatter_add(2, place, torch.ones_like(x).flatten(2))
    return (total / count.clamp_min(1)).gather(2, place).view(x.shape)


def paint_segments(weights: Tensor, pieces: Tensor) -> Tensor:
    """Return maps `[B, 1, H, W]` in which each pixel has the weight `[B, S]` of its superpixel."""
    return weights.gather(1, pieces.flatten(1)).view(len(pieces), 1, *pieces.shape[1:])
