"""ComDefend as a defence (Jia et al., CVPR 2019)."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from torch import Generator

from underfire.catalog import card
from underfire.defenses.comdefend.network import CompressionNetwork
from underfire.defenses.comdefend.training import train_comdefend
from underfire.defenses.defended import Defended, defended
from underfire.model import Classifier
from underfire.validate import at_least


@card(
    "defense",
    paper="Jia, Wei, Cao and Foroosh, ComDefend: An Efficient Image Compression Model to Defend Adversarial Examples, "
    "CVPR 2019",
    differentiable=False,
    train=train_comdefend,
)
def comdefend(
    model: Classifier,
    *,
    weights: str | CompressionNetwork | None = None,
    patch: int = 0,
    noise: float = 0.0,
    generator: Generator | None = None,
) -> Defended:
    """Compress the images to 12 bits per pixel by one trained network, and reconstruct them by another.

    BPDA rule: a bit, which is 1 where the code is positive, has the gradient of `sigmoid(code / 20)`. The networks know
    nothing of the classifier and defend any.

    Args:
        weights: a file that `underfire train comdefend` wrote, or the result of `train_comdefend`.
        patch: side of the squares into which images are cut first, as the authors cut photographs into squares of 32
            pixels, the size of the training images; 0 leaves them whole.
        noise: standard deviation of noise on the code, as in the training; the authors' code for PyTorch has 20. The
            defence is random then.

    Raises:
        NotFitted: there are no weights. InputError: the file is missing, damaged or of another defence.
    """
    at_least(0, patch=patch, noise=noise)
    network = copy(CompressionNetwork.of(weights))  # the settings of one defence are not those of another
    network.patch, network.noise = patch, noise
    made = defended(model, network, comdefend, generator)
    made.module.facts = replace(made.module.facts, random=noise > 0)
    return made
