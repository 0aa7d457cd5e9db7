"""The defence that won the third rank in the NIPS 2017 competition: random distortions around an ensemble (NIPS-r3)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from underfire.catalog import card
from underfire.defenses.defended import Defended, normal, uniform
from underfire.defenses.versions import Several, Version, opened, same_classes
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.affine import linear_maps, resample
from underfire.transforms.jpeg import jpeg

_GREY = 0.5  # the fill of the original, whose images lie in [-1, 1]
# The image that each member of the ensemble sees, the member, and the weight of its logits.
_VIEWS = (
    ("warped", 0, 0.7),
    ("compressed", 0, 0.1),
    ("noisy", 1, 0.2),
    ("compressed", 1, 0.1),
    ("rotated", 2, 0.1),
    ("rotated", 3, 0.05),
)


class Distorted(Several):
    """An ensemble each of whose members sees other random distortions of the images."""

    quality = 50

    def answer(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the weighted sum of the logits of the members."""
        members, images = self.members, dict[str, Tensor]()
        images["warped"] = _warped(x, generator)
        images["noisy"] = _noisy(x, generator)
        images["compressed"] = self.passed(lambda z: jpeg(z, self.quality), x)
        images["rotated"] = _rotated(images["compressed"], (1.0, 0.8 * 299 / 224), generator)
        logits = same_classes([members[i % len(members)](images[name]) for name, i, _ in _VIEWS])
        weights = logits.new_tensor([weight for *_, weight in _VIEWS])
        return (weights[:, None, None] * logits).sum(0)


@card(
    "defense",
    paper="Thomas and Elibol, Defense Against Adversarial Attacks, 3rd Place in the NIPS 2017 Competition, 2017",
    differentiable=False,
    random=True,
)
def nips_r3(
    model: Classifier, *, versions: tuple[Version, ...] = (), quality: int = 50, generator: Generator | None = None
) -> Defended:
    """Average the logits of an ensemble whose members see other random distortions of the image.

    The first network sees the image after shear, shift, zoom and rotation by nearest neighbours (weight 0.7), and after
    JPEG (0.1); the second after noise, rotation and zoom (0.2), and after JPEG (0.1); the third and fourth after JPEG,
    rotation and zoom (0.1 and 0.05). The constants are those of the submission; sizes are shares of the side of the
    image. Its networks were an ensemble adversarially trained Inception-ResNet v2, an adversarially trained
    Inception v3, VGG-16 and ResNet-152 v2. Here, `model` and `versions` take their places in turn, so that one network
    takes all four. Simplified: networks have no auxiliary logits, which the submission adds with weight 0.8, and noise
    and rotation are followed by one bicubic interpolation instead of two by splines. BPDA rule: that of JPEG.

    Args:
        versions: the networks after the first, up to three: classifiers, modules, or URIs of models.
        quality: JPEG quality.

    Raises:
        InputError: there are more than four networks, or the quality is out of range. ModelError: one has other
            classes.
    """
    if len(versions) > 3 or not 1 <= quality <= 100:
        raise InputError(
            f"nips_r3 needs at most three versions and a quality from 1 to 100, got {len(versions)} and {quality}"
        )
    module = Distorted(model, opened(model, versions), nips_r3, generator)
    module.quality = quality
    return Defended(module)


def _jittered(x: Tensor, number: float, generator: Generator) -> Tensor:
    """Return a number times a random factor 0.95, 0.96 ... 1.05 for each image, `[B]`."""
    return number * ((uniform(generator, x, len(x)) * 11).floor() + 95) / 100


def _warped(x: Tensor, generator: Generator) -> Tensor:
    """Return images after shear, shift, zoom and rotation, each by nearest neighbours."""
    one, zero = torch.ones_like(x[:, 0, 0, 0]), torch.zeros_like(x[:, 0, 0, 0])
    shear, angle = (_jittered(x, sign * math.pi / 128, generator) for sign in (1, -1))
    down, across = (_jittered(x, 0.02 * size, generator).floor() for size in x.shape[2:])
    tall, wide = (_jittered(x, 0.95, generator) for _ in range(2))
    cos, sin = angle.cos(), angle.sin()
    for matrix, shift in (
        (linear_maps(one, -shear.sin(), zero, shear.cos()), None),
        (linear_maps(one, zero, zero, one), torch.stack([down, across], 1)),
        (linear_maps(tall, zero, zero, wide), None),
        (linear_maps(cos, -sin, sin, cos), None),
    ):
        x = resample(x, matrix, shift, mode="nearest", fill=_GREY)
    return x


def _noisy(x: Tensor, generator: Generator) -> Tensor:
    """Return images with noise, rotated and enlarged."""
    noisy = (x + 2 / 255 * normal(generator, x)).clamp(0, 1)
    return _rotated(noisy, (1.05, 1.1), generator)


def _rotated(x: Tensor, zoom: tuple[float, float], generator: Generator) -> Tensor:
    """Return images rotated by 2 or 3 degrees, either way, and enlarged by a factor between the ends of `zoom`."""
    drawn = uniform(generator, x, 4, len(x))
    angle = torch.deg2rad((2 + (drawn[0] < 0.5).to(x)) * ((drawn[1] < 0.5).to(x) * 2 - 1))
    tall, wide = (1 / (zoom[0] + (zoom[1] - zoom[0]) * drawn[2 + i]) for i in range(2))
    cos, sin = angle.cos(), angle.sin()
    return resample(x, linear_maps(cos * tall, -sin * wide, sin * tall, cos * wide), mode="bicubic", fill=_GREY)
