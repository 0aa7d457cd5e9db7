"""The high-level representation guided denoiser as a defence (Liao et al., CVPR 2018)."""

from __future__ import annotations

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.defenses.hgd.denoiser import Denoiser
from underfire.defenses.hgd.training import train_hgd
from underfire.model import Classifier


@card(
    "defense",
    paper="Liao, Liang, Dong, Pang, Hu and Zhu, Defense against Adversarial Attacks Using High-Level Representation "
    "Guided Denoiser, CVPR 2018",
    train=train_hgd,
)
def hgd(model: Classifier, *, weights: str | Denoiser | None = None) -> Defended:
    """Denoise the images by a U-net that was trained so that the classifier answers as on clean images.

    Gradients flow through the denoiser. A denoiser may also defend another classifier than the one that guided its
    training, if the images have as many channels.

    Args:
        weights: a file that `underfire train hgd` wrote, or the result of `train_hgd`.

    Raises:
        NotFitted: there are no weights. InputError: the file is missing, damaged or of another defence.
    """
    return defended(model, Denoiser.of(weights), hgd)
