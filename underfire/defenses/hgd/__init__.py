"""The high-level representation guided denoiser (Liao et al., CVPR 2018)."""

from underfire.defenses.hgd.denoiser import Denoiser
from underfire.defenses.hgd.hgd import hgd
from underfire.defenses.hgd.training import train_hgd

__all__ = ["Denoiser", "hgd", "train_hgd"]
