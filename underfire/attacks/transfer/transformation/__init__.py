"""The adversarial transformation network of ATTA (Wu et al., CVPR 2021): the network, its training, and the term."""

from underfire.attacks.transfer.transformation.network import AdversarialTransformation
from underfire.attacks.transfer.transformation.term import hard_transformation
from underfire.attacks.transfer.transformation.training import train_transformation

__all__ = ["AdversarialTransformation", "hard_transformation", "train_transformation"]
