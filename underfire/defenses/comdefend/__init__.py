"""ComDefend: two trained networks compress an image to a few bits, and reconstruct it (Jia et al., CVPR 2019)."""

from underfire.defenses.comdefend.comdefend import comdefend
from underfire.defenses.comdefend.network import CompressionNetwork
from underfire.defenses.comdefend.training import train_comdefend

__all__ = ["CompressionNetwork", "comdefend", "train_comdefend"]
