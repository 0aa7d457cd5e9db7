"""JPEG compression (Dziugaite et al., 2016; Guo et al., ICLR 2018)."""

from __future__ import annotations

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms import jpeg as codec


@card(
    "defense",
    paper="Guo, Rana, Cisse and van der Maaten, Countering Adversarial Images Using Input Transformations, ICLR 2018",
    differentiable=False,
)
def jpeg(model: Classifier, *, quality: int = 75, subsample: bool = True) -> Defended:
    """Compress the images as JPEG and decompress them, with the values of a codec.

    BPDA rule: the gradient of the same computation without rounding, which keeps colour conversion, subsampling and
    clipping. First proposed by Dziugaite et al., A Study of the Effect of JPG Compression on Adversarial Images, 2016.

    Args:
        quality: 1 to 100.
        subsample: keep chroma at half the resolution.

    Raises:
        InputError: the quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"a JPEG quality must be from 1 to 100, got {quality}")
    return defended(model, lambda x, _: codec.jpeg(x, quality, subsample=subsample), jpeg)
