"""Make one classifier of several sources, given as models or URIs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from underfire.model import Ensemble
from underfire.model.ensemble import Fuse
from underfire.models.loaders import load


def ensemble(
    members: Sequence[nn.Module | str | Path],
    fuse: Fuse = "logits",
    *,
    weights: Sequence[float] | None = None,
    resize: bool = False,
) -> Ensemble:
    """Return a classifier that stands for several, which every attack takes as its model; see `Ensemble`.

    Args:
        members: classifiers or modules, or URIs that `load` opens.
        fuse: `"logits"`, `"probabilities"`, `"losses"` or `"gradients"` are averaged.
        weights: one positive number per member; None weighs all equally.
        resize: whether members that were made for another image size than the first get resized images.

    Raises:
        InputError: there are no members, or the weights do not fit. Unsupported: `fuse` is unknown. ModelError: a URI
            cannot be opened; or the members have other classes, or other image sizes and `resize` is false.
    """
    opened = [load(member) if isinstance(member, (str, Path)) else member for member in members]
    return Ensemble(opened, fuse, weights=weights, resize=resize)
